"""How torch.compile is used here."""

from __future__ import annotations

import functools
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable

import torch

from .errors import UsageError


def can_compile(device: str) -> bool:
    """Whether torch.compile can work: on a CPU it calls a C++ compiler, on a GPU Triton, which torch brings along on Linux alone."""
    if device == "cpu":
        return _answers(compiler())
    from torch.utils._triton import has_triton

    return device == "cuda" and has_triton()


@functools.cache
def _answers(program: str) -> bool:
    """macOS has a clang++ that only says how to install one."""
    found = shutil.which(program)
    if found is None or sys.platform == "win32":
        return found is not None
    return subprocess.run([found, "--version"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


@functools.cache
def compile_failure(device: str) -> str:
    """Why torch.compile does not work here, tried on a line of code; "" where it does."""
    prepare_compiler()
    try:
        torch.compile(lambda x: x + 1, **compile_options(device))(torch.zeros(2, device=device))
    except Exception as error:  # Python too new for this torch, no headers of Python's, no folder for its cache ...
        return " ".join(str(error).split())[:200]
    return ""


def check_compiler(device: str) -> None:
    """Raises UsageError where torch.compile cannot work."""
    if not can_compile(device):
        missing, do = ((f"the C++ compiler {compiler()}", "install it, name another in CXX") if device == "cpu" else
                       ("Triton and a GPU that it knows", "install triton (on Windows: triton-windows)"))
        raise UsageError(f"torch.compile needs {missing}, which is not there: {do}, or do without (in training: --no-compile)")


def compiler() -> str:
    """The C++ compiler that torch calls, whether it is there or not."""
    named = os.environ.get("CXX", "")
    if sys.platform == "win32":  # there torch takes it whole
        return named or "cl"
    return shlex.split(named)[0] if named.strip() else "clang++" if sys.platform == "darwin" else "g++"


def prepare_compiler() -> None:
    """Of sizes, time steps and slopes of the surrogate, each is a program: from the ninth on torch would leave them to the interpreter."""
    torch._dynamo.config.cache_size_limit = max(256, torch._dynamo.config.cache_size_limit)  # torch 2.6's name of it, still another for it
    logging.getLogger("torch.utils.cpp_extension").addFilter(_concerns_users)


def _concerns_users(record: logging.LogRecord) -> bool:
    """Not that a machine without a GPU has CUDA's compiler, which torch warns of when it compiles for the CPU."""
    return "No CUDA runtime is found" not in record.msg


def compile_options(device: str) -> dict:
    """Arguments for torch.compile: one program a shape; on a CPU, our layouts instead of its own choice, which would take
    every 4-D tensor for channels first."""
    return {"dynamic": False, **({"options": {"layout_optimization": False}} if device == "cpu" else {})}


def uncompiled(method: Callable) -> Callable:
    """``torch.compiler.disable`` that imports no compiler, which takes seconds, where none is at work."""
    @functools.wraps(method)
    def run(*args):
        return (torch.compiler.disable(method) if "torch._dynamo" in sys.modules else method)(*args)

    run._torchdynamo_disable = True  # type: ignore[attr-defined]  # what it sets
    return run
