"""Runs one of timm's scripts with our models registered: python -m eisnn_zoo.timm_run validate.py --model ei_vgg8_cifar10 ..."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import eisnn_zoo  # noqa: F401  registers the models once the script imports timm


def main() -> None:
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        print("usage: python -m eisnn_zoo.timm_run SCRIPT.py [its arguments]; timm's scripts are in its repository", file=sys.stderr)
        sys.exit(2)
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
