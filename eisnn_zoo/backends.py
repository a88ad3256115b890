"""What computes the logits: torch, or onnxruntime without torch."""

from __future__ import annotations

import numpy as np

from .classify import Network
from .errors import UsageError
from .weights import Located, load_network


def torch_network(located: Located, device: str = "auto", time_steps: int | None = None) -> tuple[Network, str]:
    """(the folded network as a function of arrays, the device it runs on).

    Raises:
        UsageError: a device that is not there. ZooError: weights that cannot be used.
    """
    import torch

    from .fold import fold

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here; install a CUDA build of torch, or use --device cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: torch has no such device here") from error
    options = {} if time_steps is None else {"time_steps": time_steps}
    network = fold(load_network(located, **options)).to(place)

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            images = torch.from_numpy(x).to(place)
            if images.dim() == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            return network(images).float().cpu().numpy()

    return run, device
