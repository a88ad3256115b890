"""Whether weights are what they are said to be."""

from __future__ import annotations

from dataclasses import dataclass

from .. import hub_client
from ..errors import ZooError
from ..files import sha256
from ..inference.backends import onnx_beside
from ..locating import Located
from ..table import ONNX
from ..weights import load_network


@dataclass(frozen=True)
class Finding:
    """One check, what it saw, and the problem in a sentence ("" where there is none)."""

    check: str
    seen: str
    problem: str = ""


def verify(located: Located) -> list[Finding]:
    """All checks of one weight file, in order."""
    findings = [_content(located), _loads(located), _accuracy(located)]
    beside = located.path.parent / ONNX
    return [*findings, _onnx(located)] if beside.is_file() else findings


def _content(located: Located) -> Finding:
    """Against the table for our weights, against the Hub's own hash for others."""
    path, row = located.path, located.row
    try:
        digest = sha256(path)
    except OSError as error:
        return Finding("sha256", "-", f"{path} cannot be read: {error.strerror}")
    recorded = located.config.facts.get("source_sha256")
    if row is not None and row.sha256:
        if digest != row.sha256:
            return Finding("sha256", digest, f"{path} is not the file of the table of weights: its sha256 is {digest}, not {row.sha256}")
        return Finding("sha256", f"{digest[:12]}..., as in the table of weights")
    if known := recorded or hub_client.recorded_hash(path):
        if digest != known:
            return Finding("sha256", digest, f"{path} is truncated or altered: its sha256 is {digest}, the Hub's {known}; fetch it again")
        return Finding("sha256", f"{digest[:12]}..., as the Hub says")
    return Finding("sha256", f"{digest[:12]}..., nothing to compare it with")


def _loads(located: Located) -> Finding:
    """Names, shapes and types are the network's, all values are finite, and none is negative where Dale's law forbids it."""
    try:
        network = load_network(located)
    except ZooError as error:
        return Finding("contents", "-", str(error))
    law = "Dale's law kept, " if network.kind == "ei" else ""
    return Finding("contents", f"{sum(p.numel() for p in network.parameters()):,} parameters, {law}all values finite")


def _accuracy(located: Located) -> Finding:
    """The table's figure is the one in the file's own configuration."""
    row, facts = located.row, located.config.facts
    if row is None or not row.folder:
        own = facts.get("top1")
        said = f"{own} % by its own record" if isinstance(own, (int, float)) else "no figure"
        return Finding("accuracy", f"{row.top1} % by its authors" if row else said)
    if facts.get("top1") != row.top1:
        return Finding("accuracy", f"{row.top1} %", f"{located.path.parent / 'config.json'} says {facts.get('top1')} % top-1, the table "
                                                    f"of weights {row.top1} %: pack the run again")
    return Finding("accuracy", f"{row.top1} %, in the table and in the configuration")


def _onnx(located: Located) -> Finding:
    """The ONNX file beside the weights, which `predict` prefers, was made from them."""
    try:
        onnx_beside(located)
    except (ZooError, OSError) as error:
        return Finding("ONNX", "-", str(error))
    return Finding("ONNX", f"{ONNX}, made from these weights")
