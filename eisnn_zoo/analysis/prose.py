"""What the report says about each study, whatever the network: its question, its formula, and how to read its picture.

Formulas and readings are HTML.
"""

from __future__ import annotations

from dataclasses import dataclass

from .energy import PICOJOULES


@dataclass(frozen=True)
class Prose:
    title: str
    question: str
    formula: str
    reading: str


PROSE = {
    "rates": Prose(
        "Firing rates", "How much do the neurons say, and how many say nothing?",
        "rate = spikes of a neuron / (images × T)",
        "A silent neuron carries nothing, and a saturated one no more. Few spikes cost little energy; a layer that falls "
        "silent cuts the network. Saturated means a rate of 95 % or more. The right picture ranks all neurons of a layer: a "
        "curve that falls early means that few neurons do the work."),
    "balance": Prose(
        "Balance of excitation and inhibition",
        "Does inhibition follow excitation, so that their difference is what the neurons hear?",
        "ratio = mean I<sub>sub</sub> / mean I<sub>EE</sub>; correlation = Pearson's, over all cells, positions, steps and "
        "images; residual = RMS(I<sub>EE</sub> − I<sub>sub</sub>) / RMS(I<sub>EE</sub>)",
        "In the left pictures each point is one cell's current at one place and time; on the line the two cancel. Points along "
        "the line are a tight balance, as in cortex; a cloud beside it is a loose one. Right: ratio and correlation near 1 "
        "with a small residual mean that inhibition cancels most of the excitation, so that small errors in it show."),
    "gain": Prose(
        "Gain control", "How much of a change of light or contrast arrives in the currents?",
        "modulation = RMS of a current's deviation from its channel's mean over the positions of an image (fully connected: "
        "over the images); light c: pixels × c; contrast c: mean + c (pixels − mean); of events: counts × c, or each event kept "
        "with probability c; before the division: I<sub>EE</sub> − I<sub>sub</sub>, after it: I; exponent = slope of log "
        "modulation over log c",
        "On the dotted diagonal the current follows the input (exponent 1); a flat line ignores its strength (exponent 0, "
        "perfect gain control). Numerator and divisor of an E-I layer both grow with the light, so the first layer divides it "
        "out exactly and the later ones never see it. Contrast at constant light does reach the first layer's current."),
    "divisors": Prose(
        "Divisors", "How large is the divisive inhibition, and how often is it nothing?",
        "D = I<sub>div</sub> where that is not 0, else the smallest non-zero entry of the slice (one step of one image); +∞ in "
        "a slice without one",
        "One ridge a layer, all with their peak at the same height. A wide one means that cells are divided very differently. "
        "Zeros come from black corners and from silence in the layer before; where whole slices are silent the layer passes "
        "nothing on but its bias."),
    "parameters": Prose(
        "Parameters", "What did training make of the synapses and gains?",
        "bimodality = (skewness² + 1) / kurtosis: 1/3 for a normal distribution, 5/9 for a uniform or an exponential one, 1 "
        "for two points",
        "Above, one ridge a layer, light to dark with depth, all with their peak at the same height; weights and gains in parts "
        "of their layer's mean, on a logarithmic axis where they span more than a factor of ten. Exact zeros are not in the "
        "ridges but below: Dale's law holds weights at ≥ 0, so training prunes by itself. E-I Init draws W<sub>EE</sub> and "
        "W<sub>IE</sub> from an exponential distribution, a hump skewed to the left on such an axis; a second hump is a second "
        "population. A coefficient above the dotted 5/9 hints at two modes but also follows from a long tail: look at the "
        "ridge too."),
    "trains": Prose(
        "Spike trains", "How regular are the spikes in time, and how variable from image to image?",
        "interval = steps from one spike of a neuron to its next within the T steps; CV = standard deviation / mean of the "
        "intervals; Fano factor = variance / mean of a neuron's spike count over images",
        "Within T steps long intervals hardly fit, so that short ones are many even by chance: the dotted lines are the same "
        "spikes at random times, each train shuffled by itself. More at one step than that: spikes come in runs. A Fano factor "
        "above 1 means that a neuron answers some images much more than others: it is selective."),
    "similarity": Prose(
        "Similarity of representations", "Which layers see the images alike?",
        "CKA = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with K = X Xᵀ of the neurons' rates X; unbiased, summed over batches",
        "1: two layers tell the images apart in the same way, up to a rotation; 0: unrelated. Blocks of high values are runs "
        "of layers that change little."),
    "interventions": Prose(
        "Interventions", "What is each part worth? Change it and count the errors.",
        "lesion: of a share of each layer's inhibitory cells, rounded to whole ones, the columns of W<sub>EI</sub> become 0, for "
        "both paths; a cell's strength = Σ W<sub>EI</sub> × Σ W<sub>IE</sub>; constant divisors: each cell's geometric mean of D "
        "over images; noise on weights: w (1 + σ ε), held at ≥ 0; flipped signs break Dale's law",
        "The solid grey line is the intact network, the dotted one chance. A curve that falls at once marks a part the network "
        "cannot spare: where inhibition cancels most of the excitation, little of it can be missing. A network that only gives one "
        "answer still scores the share of that class among the images. With n images a figure is uncertain by about 100/√n points."),
    "energy": Prose(
        "Operations and energy", "What does one image cost, with every multiplication counted?",
        "energy = Σ operations × energy of one, in pJ (float32 at 45 nm): "
        f"multiply-accumulate (MAC) {PICOJOULES['macs']}, accumulation (AC) and addition {PICOJOULES['acs']}, multiplication "
        f"{PICOJOULES['multiplications']} (Horowitz, ISSCC 2014); division {PICOJOULES['divisions']}, which is 7.1 "
        "multiplications, as measured on a microcontroller",
        "A synapse reached by a spike costs an accumulation; one reached by pixels, and the dense products that make "
        "I<sub>sub</sub> and I<sub>div</sub>, cost multiply-accumulates. Moving data is not counted and often costs more: "
        "compare networks by these figures, do not size a battery by them. <code>eisnn_zoo/analysis/energy.py</code> states "
        "every rule."),
}

EVOLUTION = {
    "animation": Prose(
        "The run in motion", "What moves when?", "",
        "One frame for each recorded epoch, one colour for each layer, light to dark with depth. Every curve has its peak at "
        "the same height; a quantity keeps its axis throughout. The dotted line is the neurons' threshold."),
    "course": Prose(
        "Course of the training", "Does firing stay alive while accuracy grows?",
        "rates on the same training images at the same T in every epoch; silent: never fired on any of them; at zero: exactly 0",
        "A layer whose rate falls to nothing cuts the network, and no gradient brings it back: that is what a bad "
        "initialisation does. Dale's law holds weights at ≥ 0, so what an update would make negative rests at 0. Early epochs "
        "take more room on a long run's axis."),
    "distributions": Prose(
        "Parameters", "How do the weights and gains leave the shape that E-I Init gave them?",
        "share of the entries in equal steps of the value, or of its logarithm where they span more than a factor of ten",
        "One ridge for each recorded epoch, from the start on top to the last, darkest one; all with their peak at the same "
        "height (one value with 40 % of all entries or more is cut off there). Exact zeros are not in the ridges of weights and "
        "gains: they stand in the course above. E-I Init draws "
        "W<sub>EE</sub> and W<sub>IE</sub> from an exponential distribution (skewed to the left on a logarithmic axis) and sets "
        "W<sub>EI</sub>, g<sub>I</sub>, g<sub>E</sub> and b<sub>E</sub> to one value each: those begin as a single block."),
    "bimodality": Prose(
        "Bimodality of the parameters", "Do two populations form, the strong and the nearly absent?",
        "(skewness² + 1) / kurtosis of log10 of the entries above 10⁻⁴ of their layer's mean, for b<sub>E</sub> of its values; "
        "5/9 (dotted): a uniform distribution",
        "Light to dark with the depth of the layer; a parameter that is constant at the start has no value there. Above 5/9 "
        "hints at two populations, but a long tail does it too: look at the ridges before believing it. On log10 the "
        "exponential distribution of E-I Init lies at 0.43."),
    "currents": Prose(
        "Currents and firing rates", "What do the neurons hear, and how is it balanced?",
        "as the distributions above, over all cells, positions, steps and images; firing rate: of every neuron, in spikes per "
        "step",
        "I<sub>EE</sub> excites, I<sub>sub</sub> is taken from it, D divides the difference, I drives the membrane (before the "
        "reset). The dotted line is the threshold: what lies right of it fires. Neurons at the left edge of the firing rates "
        "are silent."),
}
