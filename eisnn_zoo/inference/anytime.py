"""An answer at any time: spiking networks add up evidence step by step, and may stop once they are sure.

The evidence of a step is that step's logits, ``[B, classes]``; a network's answer after t steps is the mean of the first t.
It never depends on later ones, so one forward of T steps (``SpikingNet.forward_evidence``) holds the answers for all t up to T.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from .classify import softmax


class Steps(Protocol):
    """A batch on its way through time."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """The evidence of step after step, ``[B, classes]``, of the samples that are still there."""

    def keep(self, rows: np.ndarray) -> None:
        """Lets go of samples between two steps: those where rows, bool ``[B]``, is false."""


class Recorded:
    """Steps that are already known: evidence ``[T, B, classes]``."""

    def __init__(self, evidence: np.ndarray):
        self._evidence = evidence

    def __iter__(self) -> Iterator[np.ndarray]:
        for t in range(len(self._evidence)):
            yield self._evidence[t]

    def keep(self, rows: np.ndarray) -> None:
        self._evidence = self._evidence[:, rows]


def early_exit(steps: Steps, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Stops each sample at the first step whose most probable class reaches the confidence, at the last step otherwise.

    Args:
        confidence: in (0, 1]; a softmax probability never exceeds 1, so only certainty stops there.

    Returns:
        (logits ``[B, classes]`` at the stop, steps taken ``[B]``, 1 to T).
    """
    if not 0 < confidence <= 1:
        raise ValueError(f"confidence must be in (0, 1], got {confidence}")
    for t, evidence in enumerate(steps, 1):
        if t == 1:
            total = np.zeros(evidence.shape)
            logits, taken, rows = np.zeros(evidence.shape), np.zeros(len(evidence), int), np.arange(len(evidence))
        total = total + evidence
        logits[rows], taken[rows] = total / t, t
        unsure = softmax(total / t).max(-1) < confidence
        if not unsure.any():
            break
        rows, total = rows[unsure], total[unsure]
        steps.keep(unsure)
    return logits, taken


def accuracy_by_time(evidence: np.ndarray, labels: np.ndarray) -> list[dict]:
    """Top-1 accuracy in % after each number of steps: rows {"time_steps", "top1"}."""
    right = running_logits(evidence).argmax(-1) == labels
    return [{"time_steps": t + 1, "top1": round(100 * float(share), 2)} for t, share in enumerate(right.mean(1))]


def running_logits(evidence: np.ndarray) -> np.ndarray:
    """The logits after each number of steps, ``[T, B, classes]``: means over the steps so far."""
    steps = np.arange(1, len(evidence) + 1).reshape(-1, 1, 1)
    return np.cumsum(evidence, 0, dtype=np.float64) / steps


def accuracy_by_confidence(evidence: np.ndarray, labels: np.ndarray, confidences: list[float]) -> list[dict]:
    """Top-1 accuracy in % and average steps of early exit: rows {"confidence", "top1", "average_steps"}."""
    rows = []
    for confidence in confidences:
        logits, steps = early_exit(Recorded(evidence), confidence)
        rows.append({"confidence": confidence, "top1": round(100 * float((logits.argmax(-1) == labels).mean()), 2),
                     "average_steps": round(float(steps.mean()), 3)})
    return rows
