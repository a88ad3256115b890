"""The studies of a training run: each draws, and says in words what is seen."""

from __future__ import annotations

import numpy as np

from . import evolution_figures as figures
from .evolution import Evolution, coefficient, mean_of, not_finite, silent_layers, zeros
from .histograms import CURRENTS, NOT_FINITE, quantiles
from .parameters import PARAMETERS, SYNAPSES, UNIFORM
from .snapshot import Snapshot
from .subject import Study, decimals, layers, percent

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def course(e: Evolution) -> Study:
    rows = [{"epoch": s.epoch, **row, "synapses_at_zero": zeros(s, row["layer"])} for s in e.snapshots for row in s.activity]
    seen = []
    if e.metrics:
        ends = [e.metrics[0], *e.metrics[1:][-1:]]
        seen.append("Accuracy on the validation images: "
                    + ", ".join(f"{row['valid_top1']:.1f} % after epoch {row['epoch']:.0f}" for row in ends) + ".")
    seen.append("Mean firing rate: " + e.then_and_now(lambda s: percent(mean_of(s, "mean"))) + ".")
    seen.append("Silent neurons: " + e.then_and_now(lambda s: percent(mean_of(s, "silent"))) + ".")
    lost = silent_layers(e.last)
    if lost:
        seen.append(f"Firing has collapsed: of {layers(len(e.layers))} these are all but silent: {', '.join(map(str, lost))}.")
    if e.first.parameters:
        seen.append("Synapses at exactly 0: " + e.then_and_now(lambda s: percent(zeros(s) or 0.0, 2)) + ".")
    return Study("course", seen, rows, figures.course(e))


def distributions(e: Evolution) -> Study:
    spans = [f"{name} {e.then_and_now(lambda s, name=name: f'{_decades(s, name):.2f}')}" for name in SYNAPSES]
    seen = [f"The middle 90 % of the weights above 0 span so many decades (mean over layers): {'; '.join(spans)}."]
    return Study("distributions", seen, _quantile_rows(e, PARAMETERS), figures.distributions(e, PARAMETERS))


def bimodality(e: Evolution) -> Study:
    rows = [{"epoch": s.epoch, "layer": row["layer"], "parameter": row["parameter"], "n": row["n"],
             "coefficient": coefficient(row), "of_values": row["bimodality"], "of_log10": row["bimodality_log"]}
            for s in e.snapshots for row in s.parameters]
    seen = [f"Above 5/9, where there may be two populations, of {len(e.last.parameters)} parameters: "
            + e.then_and_now(lambda s: str(sum((coefficient(row) or 0) > UNIFORM for row in s.parameters))) + "."]
    grown = [(b - a, b, row) for before, row in zip(e.first.parameters, e.last.parameters)
             if (a := coefficient(before)) is not None and (b := coefficient(row)) is not None]
    if grown and len(e.snapshots) > 1:
        gain, now, row = max(grown, key=lambda found: found[0])
        where = f"layer {e.layers.index(row['layer']) + 1}" if row["layer"] in e.layers else "the output layer"
        seen.append(f"The coefficient grew most in {row['parameter']} of {where}, by {decimals(gain)} to {decimals(now)}." if gain > 0 else
                    "The coefficient grew in none of those that had one at the start.")
    return Study("bimodality", seen, rows, figures.bimodality(e))


def currents(e: Evolution) -> Study:
    seen = []
    if e.first.parameters:
        both = [f"{words} {e.then_and_now(lambda s, key=key: _mean(s, key))}" for key, words in (
            ("ratio", "inhibition / excitation"), ("residual", "what is left of the excitation"))]
        seen.append(f"Means over layers: {'; '.join(both)}.")
    if any(not_finite(s) for s in e.snapshots):
        seen.append("Currents that are infinite or not a number: " + e.then_and_now(lambda s: percent(not_finite(s), 3)) + ".")
    last = e.layers[-1]
    low, high = quantiles(e.last.histograms[last, "membrane"], (0.05, 0.95))
    if low is not None and high is not None:
        seen.append(f"In the last layer the middle 90 % of the membranes lie between {low:.2f} and {high:.2f} in the end "
                    f"(threshold: {e.last.threshold:g}).")
    return Study("currents", seen, _quantile_rows(e, (*CURRENTS, "rate")), figures.distributions(e, figures.ACTIVITY))


def evolution_studies(e: Evolution) -> list[Study]:
    """Those that the network allows: one without E-I layers has no parameters to follow."""
    return [study(e) for study in ((course, distributions, bimodality, currents) if e.first.parameters else (course, currents))]


def _quantile_rows(e: Evolution, names: tuple[str, ...]) -> list[dict]:
    columns = [f"q{100 * level:02.0f}" for level in LEVELS]
    return [{"epoch": s.epoch, "layer": layer, "quantity": name, "n": int(counts.sum()), "not_finite": int(counts[NOT_FINITE]),
             **dict(zip(columns, quantiles(counts, LEVELS)))}
            for s in e.snapshots for (layer, name), counts in s.histograms.items() if name in names]


def _decades(s: Snapshot, name: str) -> float:
    """Decades from the 5 % to the 95 % quantile of what is above zero, mean over layers."""
    spans = []
    for (_, own), counts in s.histograms.items():
        if own == name:
            low, high = quantiles(counts, (0.05, 0.95), positive=True)
            if low and high:
                spans.append(np.log10(high / low))
    return float(np.mean(spans)) if spans else 0.0


def _mean(s: Snapshot, key: str) -> str:
    found = [row[key] for row in s.activity if row[key] is not None and np.isfinite(row[key])]
    return f"{np.mean(found):.2f}" if found else "none"
