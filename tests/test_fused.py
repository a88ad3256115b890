"""The fused kernels (tests/kernels.py), and that a processor never meets them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from eisnn_zoo import fusing
from eisnn_zoo.neuron import LIF

KERNELS = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).with_name("kernels.py"))]
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@pytest.mark.parametrize("where", ["interpreter", pytest.param("gpu", marks=pytest.mark.cuda)])
def test_kernels_are_the_plain_path(where):
    if where == "gpu" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    settings = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if where == "interpreter" else {}
    done = subprocess.run(KERNELS, env={**os.environ, "OMP_NUM_THREADS": "1", **settings}, capture_output=True, text=True)
    if where == "interpreter" and "only 0-dimensional arrays can be converted" in done.stdout:
        pytest.skip("the interpreter of this version of Triton does not go with this version of numpy")
    assert done.returncode == 0, done.stdout[-5000:]


def test_a_processor_never_imports_them():
    script = """
import sys, torch
from eisnn_zoo.networks import build
net = build("ei_mlp2_mnist").eval()
net.mark_initialised()
net(torch.rand(2, 1, 28, 28))
assert "eisnn_zoo.fused" not in sys.modules and "triton" not in sys.modules
"""
    settings = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", script], check=True, env=settings)


def test_a_kernel_is_tried_wherever_the_first_forward_is():
    with torch.inference_mode():
        assert fusing._agrees(fusing.divide_and_fire_plainly, torch.device("cpu"), LIF(), 1)
