"""eisnn-zoo eval --time-steps 1,2,4 and --early-exit: what a network knows after each step, and what stopping early costs."""

from __future__ import annotations

import json
from pathlib import Path

from ..config import MAX_STEPS
from ..errors import UsageError
from .output import Whole, note, table


def parse_steps(text: str | None) -> list[int]:
    """Numbers of time steps in "4" or "1,2,4,8"; none where text is None. Raises UsageError."""
    try:
        steps = [int(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        steps = [0]
    if not all(1 <= t <= MAX_STEPS for t in steps):
        raise UsageError(f"--time-steps {text}: numbers from 1 to {MAX_STEPS:,}, as in 4 or 1,2,4,8")
    return sorted(set(steps))


def check_confidence(early_exit: float | None) -> None:
    """Raises UsageError where it is no confidence."""
    if early_exit is not None and not 0 < early_exit <= 1:
        raise UsageError(f"--early-exit {early_exit:g}: a confidence in (0, 1], as in --early-exit 0.9")


def report(evidence, images, size: int, steps: list[int], confidence: float | None, batch_size: int, output: Path | None,
           format: Whole) -> None:
    """Prints accuracy after each of steps, and with early exit at the confidence, from one pass at the network's own T.

    A network never sees its future, so its first steps are those of a network with fewer.

    Args:
        evidence: of the network, see :func:`~eisnn_zoo.training.evaluation.collect_evidence`.
    """
    from ..inference.anytime import accuracy_by_confidence, accuracy_by_time
    from ..training.evaluation import collect_evidence

    found = collect_evidence(evidence, images, size, batch_size)
    labels = images.y
    by_time = [row for row in accuracy_by_time(found, labels) if row["time_steps"] in steps]
    early = accuracy_by_confidence(found, labels, [confidence]) if confidence is not None else []
    text = json.dumps({"by_time": by_time, "early_exit": early}, indent=2)
    if format is Whole.json:
        print(text)
    else:
        print(table(by_time, {"time_steps": "T", "top1": "top-1 (%)"}))
        if early:
            print("\n" + table(early, {"confidence": "confidence", "top1": "top-1 (%)", "average_steps": "average steps"}))
    if output:  # last: what was measured is not lost where this cannot be written
        from ..files import write_atomic
        from ..training.plots import accuracy_by_steps

        output.mkdir(parents=True, exist_ok=True)
        accuracy_by_steps(by_time, early, output / "time_steps.png")
        write_atomic(output / "time_steps.json", text + "\n")
        note(f"wrote {output / 'time_steps.png'} and time_steps.json")
