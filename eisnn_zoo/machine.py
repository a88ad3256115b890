"""What a measured time or size depends on: the processor, the memory held, the versions."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import time
from collections.abc import Iterable


def peak_memory(device: str = "cpu") -> int | None:
    """The most bytes that this process has held: of main memory, or of a GPU's. None where the system does not tell (Windows)."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as f:
        # Linux's getrusage would count the process that started this one too.
        return 1024 * int(next(line.split()[1] for line in f if line.startswith("VmHWM")))
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine(packages: Iterable[str] = ("torch", "onnxruntime", "numpy")) -> dict[str, str]:
    """What a measured time depends on: processor, cores, date and versions."""
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "-"

    return {"date": time.strftime("%Y-%m-%d"), "processor": processor(), "cores": str(os.cpu_count()), "python": platform.python_version(),
            **{package: of(package) for package in packages}}


def device_name(device: str) -> str:
    """The name of what a torch device stands for: of the GPU, or of the processor."""
    if not device.startswith("cuda"):
        return processor()
    import torch

    return torch.cuda.get_device_name(device)


def processor() -> str:
    """Its name, as well as the operating system tells it, without trademarks: "Intel Xeon @ 2.50GHz"."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:  # only Linux has that file
        name = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), name)
    return " ".join(re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b", "", name, flags=re.IGNORECASE).split())
