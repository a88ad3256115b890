"""The studies of a network: each measures, draws, and says in words what is seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..evaluating import together
from . import energy as cost
from . import interventions as iv
from . import study_figures as figures
from .gain import exponent, gain_rows
from .histograms import CurrentHistograms, count
from .measures import Balance, FiringRates, SpikeTrains, ZeroDivisors
from .parameters import PARAMETERS, SYNAPSES, UNIFORM, ei_parameters, parameter_rows
from .probes import Activity, spiking_layers, stream
from .similarity import cka
from .subject import Study, Subject, decimals, layers, microjoules, percent

GAIN_IMAGES = 30  # gain control runs the network at every contrast, and needs no more images than this
GAIN_LEVELS = (0.1, 0.2, 0.35, 0.5, 0.75)
DIVISOR_IMAGES = 50
ENTRIES = 20_000  # of a layer's currents, as points of a picture
LESIONS = (0.02, 0.05, 0.1, 0.25)


def rates(s: Subject) -> Study:
    measure = FiringRates()
    stream(s.model, s.data.inputs, measure)
    rows = measure.rows()
    busiest, quietest = _extremes(rows, "mean")
    silent = _extremes(rows, "silent")[0]
    neurons = sum(r["neurons"] for r in rows)
    overall = sum(r["mean"] * r["neurons"] for r in rows) / neurons
    seen = [f"A neuron fires at {percent(overall)} of its steps on average: {overall * s.model.time_steps:.2f} spikes {_a(s.thing)}."]
    never = f"{percent(silent['silent'])} never fired on any {s.thing}."
    if len(rows) > 1:
        seen += [f"Layer {_number(s, busiest)} is the busiest ({percent(busiest['mean'])}), layer {_number(s, quietest)} the quietest "
                 f"({percent(quietest['mean'])}).", f"Layer {_number(s, silent)} has the most silent neurons: {never}"]
    else:
        seen.append(f"Of the neurons {never}")
    return Study("rates", seen, rows, figures.rates(rows, measure.rates))


def balance(s: Subject) -> Study:
    iv.ei_layers(s.model)
    measure, sample = Balance(), _Sample()
    stream(s.model, s.data.inputs, measure, sample)
    rows = measure.rows()
    driven = [r for r in rows if r["correlation"] is not None and r["residual"] is not None]  # the others' input is silent
    seen = [f"Inhibition exceeds excitation on average in {sum(r['I_sub'] > r['I_EE'] for r in rows)} of {layers(len(rows))}."]
    if driven:
        tightest = min(driven, key=lambda r: r["residual"])
        seen.append(f"The balance is tightest in layer {_number(s, tightest)}: {percent(tightest['residual'])} of the excitation is "
                    f"left, and the two correlate at {tightest['correlation']:.2f}.")
    return Study("balance", seen, rows, figures.balance(rows, sample.pairs))


def gain(s: Subject) -> Study:
    data = s.data.first(GAIN_IMAGES)
    changes = ({("Events weaker", "weight of an event"): "black", ("Events lost", "share of events kept"): "events"}
               if s.model.event_input else {("Light", "light"): "black", ("Contrast", "contrast"): "mean"})
    measured = {names: gain_rows(s.model, data.inputs, GAIN_LEVELS, about) for names, about in changes.items()}
    rows = [{"changed": axis, **r} for (_, axis), own in measured.items() for r in own]
    slopes = {axis: [(exponent(own, l, "before_division"), exponent(own, l, "after_division")) for l in s.layers]
              for (_, axis), own in measured.items()}
    seen = []
    for axis, [(before, after), *_] in slopes.items():
        if after is not None:
            arrived = decimals(after)
            seen.append(f"The first layer's current follows the {axis} with exponent "
                        + (f"{arrived}." if before is None else f"{decimals(before)} before the division and {arrived} after it."))
    axis, found = list(slopes.items())[-1]
    if len(found) > 1 and found[-1][1] is not None:
        seen.append(f"The last layer's follows the {axis} with exponent {decimals(found[-1][1])}.")
    return Study("gain", seen, rows, figures.gain(measured, s.layers))


def divisors(s: Subject) -> Study:
    iv.ei_layers(s.model)
    measure, spread = ZeroDivisors(), CurrentHistograms(("D",))
    stream(s.model, s.data.inputs, measure, spread)
    rows = measure.rows()
    most = _extremes(rows, "zero_entries")[0]
    if most["zero_entries"]:
        seen = [f"Zeros are most frequent in layer {_number(s, most)}: {percent(most['zero_entries'], 2)} of the entries."]
    else:
        seen = [f"On these {s.thing}s no divisor was zero: the stabilization had nothing to do."]
    lost = [r for r in rows if r["silent_slices"]]
    if lost:
        seen.append(f"In {layers(len(lost))} some steps had no inhibition at all, so that the current was the bias alone.")
    return Study("divisors", seen, rows, figures.divisors({layer: c.numpy() for (layer, _), c in spread.counts.items()}, rows))


def parameters(s: Subject) -> Study:
    iv.ei_layers(s.model)
    rows = parameter_rows(s.model)
    found = ei_parameters(s.model)
    none = torch.empty(0)  # the output layer has no gains: its place stays empty, so that each layer has one height throughout
    counts = {n: [count(_in_means(p.get(n, none), n)).numpy() for p in found.values()] for n in PARAMETERS}
    weights = torch.cat([p[n].flatten() for p in found.values() for n in SYNAPSES])
    zeros = (weights == 0).double().mean().item()
    two = [r for r in rows if r["bimodality"] is not None and r["bimodality"] > UNIFORM]
    excitatory = [r["bimodality"] for r in rows if r["parameter"] == "W_EE" and r["bimodality"] is not None]
    seen = [f"{percent(zeros)} of all synapses rest at exactly 0, where Dale's law holds them."]
    if excitatory:
        seen.append(f"The bimodality coefficients of the excitatory synapses lie between {min(excitatory):.3f} and "
                    f"{max(excitatory):.3f}, layer by layer; the exponential distribution they start from has {UNIFORM:.3f}.")
    seen.append(f"{len(two)} of the {len(rows)} parameters lie above {UNIFORM:.3f}.")
    return Study("parameters", seen, rows, figures.parameters(counts, rows))


def trains(s: Subject) -> Study:
    measure, rates = SpikeTrains(), FiringRates()
    stream(s.model, s.data.inputs, measure, rates)
    rows = measure.rows()
    fano = [r["fano"] for r in rows if r["fano"] is not None]
    counts, chance = sum(measure.intervals.values()), sum(measure.by_chance.values())
    if s.model.time_steps == 1 or not counts.sum():
        seen = ["A single time step has no intervals." if s.model.time_steps == 1 else "No neuron sent two spikes."]
    else:
        seen = [f"{percent((counts[1] / counts.sum()).item())} of all intervals are of one step: the neuron fired again at once. "
                f"With the same spikes at random times it would be {percent((chance[1] / chance.sum()).item())}."]
    if fano:
        seen.append(f"Fano factors lie between {min(fano):.2f} and {max(fano):.2f} (Poisson: 1).")
    return Study("trains", seen, rows, figures.trains(rows, measure.intervals, measure.by_chance, rates.over_time))


def similarity(s: Subject) -> Study:
    pairs = {"this network": s.model} | ({"this network • the twin": s.twin} if s.twin is not None else {})
    matrices = {name: cka(s.model, other, s.data.inputs).numpy() for name, other in pairs.items()}
    own = matrices["this network"]
    empty = {"this network": ~np.isfinite(own.diagonal())}
    seen = ["The network has a single layer."] if len(own) == 1 else []
    if len(own) > 1 and np.isfinite(own.diagonal(1)).any():
        seen.append(f"Neighbouring layers agree at {np.nanmean(own.diagonal(1)):.2f} on average.")
    if len(own) > 1 and np.isfinite(own[0, -1]):
        seen.append(f"First and last layer agree at {own[0, -1]:.2f}.")
    if s.twin is not None:
        across = matrices["this network • the twin"]
        empty["the twin"] = ~np.isfinite(across[~empty["this network"]]).all(0)
        if not s.matched:
            seen.append(f"The twin has other layers ({across.shape[1]}, this network {len(own)}): each is compared with each.")
        elif np.isfinite(across.diagonal()).any():
            seen.append(f"The same layers of the two networks agree at {np.nanmean(across.diagonal()):.2f} on average.")
    for name, without in empty.items():
        if without.any():
            numbers = ", ".join(str(i) for i in without.nonzero()[0] + 1)
            seen.append(f"These layers of {name} are silent, or answer all {s.thing}s alike, and are left empty: {numbers}.")
    names = {name: list(spiking_layers(other)) for name, other in pairs.items()}
    rows = [{"networks": name, "layer": s.layers[i], "with_layer": names[name][j], "cka": value.item() if np.isfinite(value) else None}
            for name, m in matrices.items() for (i, j), value in np.ndenumerate(m)]
    return Study("similarity", seen, rows, figures.similarity(matrices))


def interventions(s: Subject) -> Study:
    inhibited = iv.ei_layers(s.model).values()
    inhibitory = sum(layer.n_i for layer in inhibited)
    lesions = ("Lesioned inhibitory cells", "share of all cells", 0.0)
    constants = iv.mean_divisors(s.model, s.data.first(DIVISOR_IMAGES).inputs)
    seed, events = {"seed": s.seed}, s.model.event_input
    dimmed = ("Events weaker", "weight of an event") if events else ("Light dimmed", "light")
    plan = {  # title: (axes it shares, x label, level that changes nothing, intervention, levels)
        "random": (*lesions, partial(iv.lesion, **seed), LESIONS),
        "strongest first": (*lesions, partial(iv.lesion, by="strongest"), LESIONS),
        "weakest first": (*lesions, partial(iv.lesion, by="weakest"), LESIONS),
        "divisive: g_I × factor": ("Strength of inhibition", "factor", 1.0, iv.scale_g_i, (0.5, 0.75, 1.25, 1.5, 2.0)),
        "subtractive: I_sub × factor": ("Strength of inhibition", "factor", 1.0, iv.scale_subtraction, (0.0, 0.9, 1.05, 1.2)),
        "as it is": (*dimmed, 1.0, iv.input_contrast, (0.1, 0.25, 0.5)),
        "divisors held constant": (*dimmed, 1.0,
                                   lambda m, level: together((iv.fixed_division(m, constants), iv.input_contrast(m, level))),
                                   (0.1, 0.25, 0.5, 1.0)),
        "weights": ("Noise on weights", "noise, standard deviations / weight", 0.0, partial(iv.weight_noise, **seed),
                    (0.05, 0.1, 0.2, 0.4)),
        "W_EE turned inhibitory": ("Signs flipped", "share of the excitatory synapses", 0.0, partial(iv.flip_signs, **seed),
                                   (0.005, 0.02, 0.05, 0.1)),
        "input": (("Events lost", "share of the events", 0.0, partial(iv.drop_events, **seed), (0.1, 0.25, 0.5, 0.75)) if events
                  else ("Noise on pixels", "standard deviation", 0.0, partial(iv.input_noise, **seed), (0.02, 0.05, 0.1, 0.2))),
        "spikes": ("Spikes lost", "share of the spikes", 0.0, partial(iv.drop_spikes, **seed), (0.1, 0.2, 0.4, 0.6)),
    }
    intact = iv.accuracy(s.model, s.data)
    rows: list[dict] = []
    panels: dict[str, tuple] = {}
    for how, (what, x, neutral, intervention, levels) in plan.items():
        own = iv.curve(s.model, s.data, intervention, levels)
        if what == lesions[0]:  # of small layers a share is not many cells: the picture shows the share that was silenced
            own = [{**r, "cells": sum(iv.whole_cells(layer, r["level"]) for layer in inhibited)} for r in own]
        rows += [{"intervention": what, "how": how, **r} for r in own]
        points = [(r["cells"] / inhibitory if "cells" in r else r["level"], r["top1"]) for r in own]
        panels.setdefault(what, (x, {}))[1][how] = points if neutral in levels else [*points, (neutral, intact)]

    def row(how: str, level: float) -> dict:
        return next(r for r in rows if r["how"] == how and r["level"] == level)

    def at(how: str, level: float) -> str:
        return f"{row(how, level)['top1']:.1f} %"

    cells = row("random", 0.05)["cells"]

    seen = [f"Intact: {intact:.1f} % of {len(s.data)} {s.thing}s are right. Chance: {100 / s.model.num_classes:.1f} %.",
            f"Without 5 % of each layer's inhibitory cells ({cells} of {inhibitory}, {percent(cells / inhibitory)}): "
            f"{at('random', 0.05)}. Without a fifth of all spikes: {at('spikes', 0.2)}.",
            f"{'With events that count a tenth' if events else 'At a tenth of the light'}: {at('as it is', 0.1)}. With divisors "
            f"that no longer listen to the {s.thing}: {at('divisors held constant', 1.0)}."]
    return Study("interventions", seen, rows, figures.interventions(panels, intact, 100 / s.model.num_classes))


def energy(s: Subject) -> Study:
    rows = cost.operations(s.model, s.data.inputs)
    titles = dict(cost.VARIANTS)
    if s.matched and (s.twin.kind, s.model.kind) == ("bn", "ei"):
        titles["bn"] = "BN twin, its own spikes"
        own = [r for r in cost.operations(s.twin, s.data.inputs) if r["variant"] == "bn"]
        rows = [*(r for r in rows if r["variant"] != "bn"), *own]
    elif s.model.kind == "ei":
        titles["bn"] = "BN twin, the same spikes"
    else:
        titles["bn"] = "this network"
    whole = cost.totals(rows)
    uj = {r["variant"]: r["microjoules"] for r in whole}
    here = "folded" if "folded" in uj else "bn"
    steps = f" of {s.model.time_steps} frames" if s.model.event_input else ""
    once = " on one frame" if s.model.event_input else ""
    seen = [f"One {s.thing}{steps} costs {microjoules(uj[here])} of arithmetic ({titles[here]}), an ANN of the same shape{once} "
            f"{microjoules(uj['ann'])}: {uj['ann'] / uj[here]:.2f} times as much."]
    if here == "folded":
        divided = next(r for r in whole if r["variant"] == "folded")
        share = (divided["divisions"] * cost.PICOJOULES["divisions"]) * 1e-6 / divided["microjoules"]
        seen.append(f"A BN twin costs {microjoules(uj['bn'])}: inhibition makes it {uj['folded'] / uj['bn']:.2f} times as much. The "
                    f"divisions are {percent(share)} of the network's energy.")
    return Study("energy", seen, rows + whole, figures.energy(rows, whole, [*s.layers, "head"], titles, s.thing))


STUDIES: dict[str, Callable[[Subject], Study]] = {
    f.__name__: f for f in (rates, balance, gain, divisors, parameters, trains, similarity, interventions, energy)}
EI_ONLY = ("balance", "divisors", "parameters", "interventions")


class _Sample:
    """Some entries of I_EE and I_sub of each layer, from the first batch: {layer: two arrays}."""

    def __init__(self) -> None:
        self.pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def see(self, activity: Activity) -> None:
        if activity.name not in self.pairs:
            self.pairs[activity.name] = _some(activity["I_EE"]), _some(activity["I_sub"])


def _some(value: Tensor) -> np.ndarray:
    flat = value.reshape(-1)
    rows = torch.randint(len(flat), (ENTRIES,), generator=torch.Generator().manual_seed(0))
    return flat[rows.to(flat.device)].cpu().numpy()


def _in_means(p: Tensor, name: str) -> Tensor:
    """In parts of its mean, but for the bias, which has either sign."""
    return p if name == "b_E" or not p.any() else p / p.mean()


def _extremes(rows: list[dict], key: str) -> tuple[dict, dict]:
    return max(rows, key=lambda r: r[key]), min(rows, key=lambda r: r[key])


def _a(thing: str) -> str:
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"


def _number(s: Subject, row: dict) -> int:
    return s.layers.index(row["layer"]) + 1
