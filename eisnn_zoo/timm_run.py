"""Runs one of timm's scripts with our models registered: python -m eisnn_zoo.timm_run validate.py --model ei_vgg8_cifar10 ...

Where the script trains, Dale's law holds after every step of its optimizer.
"""

from __future__ import annotations

import functools
import runpy
import sys
import weakref
from pathlib import Path

import eisnn_zoo  # noqa: F401  registers the models once the script imports timm


def keep_dales_law() -> None:
    """After every step of any optimizer, all networks that are made from now on go back to non-negative weights."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from .networks import SpikingNet

    networks: weakref.WeakSet[SpikingNet] = weakref.WeakSet()
    make = SpikingNet.__init__

    @functools.wraps(make)
    def made(self, *args, **options) -> None:
        make(self, *args, **options)
        networks.add(self)

    def project(*_) -> None:
        for network in networks:
            network.project_()

    SpikingNet.__init__ = made  # type: ignore[method-assign]
    register_optimizer_step_post_hook(project)


def main() -> None:
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        said = f"there is no file {sys.argv[1]}" if len(sys.argv) > 1 else "usage: python -m eisnn_zoo.timm_run SCRIPT.py [its arguments]"
        print(f"{said}; timm's scripts are in its repository, https://github.com/huggingface/pytorch-image-models", file=sys.stderr)
        sys.exit(2)
    keep_dales_law()
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
