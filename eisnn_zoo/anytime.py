"""An answer at any time: spiking networks add up evidence step by step, and may stop once they are sure.

Everything here works on the evidence, the logits of every single step (``SpikingNet.forward_evidence``), ``[T, B, classes]``.
What a network says after t steps never depends on later ones, so one forward of T steps holds the answers for all t up to T.
"""

from __future__ import annotations

import numpy as np


def running_logits(evidence: np.ndarray) -> np.ndarray:
    """The logits after each number of steps, ``[T, B, classes]``: means over the steps so far."""
    steps = np.arange(1, len(evidence) + 1).reshape(-1, 1, 1)
    return np.cumsum(evidence, 0, dtype=np.float64) / steps


def early_exit(evidence: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Stops each sample at the first step whose most probable class reaches the confidence, at the last step otherwise.

    Args:
        confidence: in (0, 1]; a softmax probability never exceeds 1, so only certainty stops there.

    Returns:
        (logits ``[B, classes]`` at the stop, steps taken ``[B]``, 1 to T).
    """
    from .classify import softmax

    if not 0 < confidence <= 1:
        raise ValueError(f"confidence must be in (0, 1], got {confidence}")
    logits = running_logits(evidence)
    sure = softmax(logits).max(-1) >= confidence
    sure[-1] = True
    stop = sure.argmax(0)
    return logits[stop, np.arange(logits.shape[1])], stop + 1


def accuracy_by_time(evidence: np.ndarray, labels: np.ndarray) -> list[dict]:
    """Top-1 accuracy in % after each number of steps: rows {"time_steps", "top1"}."""
    right = running_logits(evidence).argmax(-1) == labels
    return [{"time_steps": t + 1, "top1": round(100 * float(share), 2)} for t, share in enumerate(right.mean(1))]


def accuracy_by_confidence(evidence: np.ndarray, labels: np.ndarray, confidences: list[float]) -> list[dict]:
    """Top-1 accuracy in % and average steps of early exit: rows {"confidence", "top1", "average_steps"}."""
    rows = []
    for confidence in confidences:
        logits, steps = early_exit(evidence, confidence)
        rows.append({"confidence": confidence, "top1": round(100 * float((logits.argmax(-1) == labels).mean()), 2),
                     "average_steps": round(float(steps.mean()), 3)})
    return rows
