"""What training made of the parameters: their distributions, how many rest at zero, and whether they have two modes."""

from __future__ import annotations

from torch import Tensor, nn

from ..ei import EILayer, EISynapses

NAMES = {"ee.weight": "W_EE", "ie.weight": "W_IE", "ei.weight": "W_EI", "g_i": "g_I", "g_e": "g_E", "b_e": "b_E"}
"""Names in the state of a layer, and in the paper."""
PARAMETERS = tuple(NAMES.values())
SYNAPSES = PARAMETERS[:3]
NEGLIGIBLE = 1e-4  # of the mean; an optimizer can leave 1e-40 where nothing is left to say
UNIFORM = 5 / 9  # bimodality coefficient of a uniform distribution (and of an exponential one, where E-I Init starts)


def ei_parameters(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """{layer: {paper's name: tensor}}, of every E-I layer and the output layer."""
    return {name.removesuffix(".current"): {NAMES[leaf]: p.detach() for leaf, p in module.named_parameters()}
            for name, module in model.named_modules() if isinstance(module, EISynapses)}


def bimodality_coefficient(x: Tensor) -> float | None:
    """Sarle's (skewness^2 + 1) / kurtosis, in (0, 1]: 1 for two equal points, 1/3 for a normal, 5/9 for a uniform or an
    exponential distribution; above 5/9 hints at two modes. None for a constant."""
    z = x.detach().flatten().double()
    z = z - z.mean()
    variance = z.square().mean()
    if variance == 0:
        return None
    z = z / variance.sqrt()
    return ((z.pow(3).mean().square() + 1) / z.pow(4).mean()).item()


def parameter_rows(model: nn.Module) -> list[dict]:
    """One row for each parameter of each E-I layer.

    zeros: share of entries that are exactly 0 (held there by the projection of Dale's law); negligible: share above 0 but below
    NEGLIGIBLE; negative: share below 0 (only b_E has any, unless the law was lifted); bimodality: of all entries;
    bimodality_log: of log10 of the positive ones that are not negligible, which is where two populations of weights, strong
    and weak, come apart.
    """
    rows = []
    for layer, parameters in ei_parameters(model).items():
        for name, p in parameters.items():
            positive = p[p > 0]
            telling = positive[positive >= NEGLIGIBLE * p.mean()]
            rows.append({"layer": layer, "parameter": name, "n": p.numel(), "mean": p.mean().item(),
                         "std": p.std(correction=0).item(), "zeros": (p == 0).double().mean().item(),
                         "negligible": (len(positive) - len(telling)) / p.numel(),
                         "negative": (p < 0).double().mean().item(), "bimodality": bimodality_coefficient(p),
                         "bimodality_log": bimodality_coefficient(telling.log10()) if len(telling) else None})
    return rows


def inhibitory_strength(layer: EILayer) -> Tensor:
    """``[n_I]``: what each inhibitory cell can take from the excitatory cells, sum of W_EI times sum of W_IE."""
    return layer.ei.weight.detach().sum(0) * layer.ie.weight.detach().flatten(1).sum(1)
