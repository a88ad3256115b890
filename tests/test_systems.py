"""What Windows and macOS do otherwise, as far as it can be played here."""

from __future__ import annotations

import builtins
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from training_helpers import digits, recipe

from eisnn_zoo import compiling, files, machine
from eisnn_zoo.cli.output import check_folder
from eisnn_zoo.errors import UsageError
from eisnn_zoo.inference import integer
from eisnn_zoo.inference.torch_runtime import torch_device
from eisnn_zoo.sharing.packing import _of_any_system
from eisnn_zoo.sharing.publishing import _PATH
from eisnn_zoo.training.engine import Training
from eisnn_zoo.training.recipe_file import load_recipe
from eisnn_zoo.training.report import log, logging_to
from eisnn_zoo.training.stopping import handled_by
from eisnn_zoo.weights import write_tensors

SHIP = Path(__file__).parent / "data" / "cifar10" / "ship_1.png"


def test_a_file_that_a_scanner_holds_for_a_moment_is_replaced_on_windows(tmp_path, monkeypatch):
    path, replace, refused = tmp_path / "metrics.csv", os.replace, iter([True, True, False])
    path.write_text("before")

    def busy(*names):
        if next(refused):
            raise PermissionError(13, "Access is denied", str(path))
        replace(*names)

    monkeypatch.setattr(os, "replace", busy)
    with pytest.raises(PermissionError):
        files.write_atomic(path, "after")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(sys, "platform", "win32")
    files.write_atomic(path, "after")
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


def test_paths_are_quoted_for_the_shell_that_reads_them(monkeypatch):
    assert files.quoted(Path("runs/my flowers")) == "'runs/my flowers'"
    monkeypatch.setattr(sys, "platform", "win32")
    assert files.quoted(r"runs\mine") == r"runs\mine" and files.quoted(r"my runs\mine") == r'"my runs\mine"'


def test_a_system_that_does_not_tell_the_memory_held(monkeypatch):
    assert machine.peak_memory() > 10**6

    def gone(name, *arguments, **options):
        if str(name).startswith("/proc"):
            raise FileNotFoundError(name)
        return open_(name, *arguments, **options)

    open_ = builtins.open
    monkeypatch.setattr(builtins, "open", gone)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert machine.peak_memory() is None


def test_a_compiler_that_only_says_how_to_install_one(tmp_path, monkeypatch):
    stub = tmp_path / "clang++"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("CXX", f"{stub} -O2")
    assert compiling.compiler() == str(stub) and not compiling.can_compile("cpu")
    stub.write_text("#!/bin/sh\necho clang 17\n")
    compiling._answers.cache_clear()
    assert compiling.can_compile("cpu")
    compiling._answers.cache_clear()


def test_the_compiler_that_torch_calls_on_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("CXX", raising=False)
    assert compiling.compiler() == "cl"
    monkeypatch.setenv("CXX", r"C:\Program Files\LLVM\bin\clang-cl.exe")
    assert compiling.compiler() == r"C:\Program Files\LLVM\bin\clang-cl.exe"


def test_a_gpu_is_compiled_for_by_triton_and_others_not(monkeypatch):
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    assert compiling.can_compile("cuda") and not compiling.can_compile("mps")
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    with pytest.raises(UsageError, match=r"needs Triton .*triton-windows.*--no-compile"):
        compiling.check_compiler("cuda")


def test_what_powershell_writes_is_read(tmp_path, cli):
    (tmp_path / "mine.yaml").write_text("model: ei_mlp2_mnist\nepochs: 3\nabout: größer\n", encoding="utf-16")
    assert load_recipe(tmp_path / "mine.yaml").about == "größer"
    (tmp_path / "list.txt").write_text(f"{SHIP}\r\n", encoding="utf-16")
    code, out, _ = cli("predict", "--from-file", tmp_path / "list.txt", "--format", "csv")
    assert code == 0 and "ship" in out and out.count("\n") == 2


@pytest.mark.parametrize("text, found", [
    (r'"data": "C:\\Users\\me\\cifar"', True), ('"data": "c:/Users/me"', True), (r"weights: D:\runs\a", True),
    ("https://huggingface.co/a", False), ("hf-hub:org/name", False), ("time_steps: {0: 1, 3: 2}", False)])
def test_paths_of_windows_are_not_published(text, found):
    assert bool(_PATH.search(text)) == found


def test_a_run_of_windows_is_packed_anywhere():
    path = _of_any_system(r"C:\Users\me\best")
    assert path.is_absolute() and path.name == "best" and _of_any_system("/home/me").is_absolute()
    assert not _of_any_system("ei_vgg8_cifar10.zoo").is_absolute()


def test_a_drive_that_is_not_there(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(UsageError, match="name another folder"):
        check_folder(Path("/runs/a"))


def test_a_folder_that_is_gone_and_links_that_lead_nowhere_are_one_sentence(tmp_path, cli):
    (tmp_path / "gone").mkdir()
    code = f"cd {tmp_path / 'gone'}; rmdir ../gone; {sys.executable} -m eisnn_zoo predict {SHIP}"
    done = subprocess.run(["sh", "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "Error: the folder in which this was started is gone: go to another\n"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    got, _, err = cli("predict", SHIP, "-o", tmp_path / "loop")
    assert got in (1, 2) and "loop" in err and "should not happen" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
@pytest.mark.parametrize("words", ["I/O error: No space left on device (os error 28)",
                                   'IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'])  # of older versions
def test_a_full_disk_is_named_by_what_was_to_be_written(tmp_path, monkeypatch, words):
    def full(*_, **__):
        raise SafetensorError(f"Error while serializing: {words}")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_tensors(tmp_path / "model.safetensors", {}, {})
    assert caught.value.filename == str(tmp_path / "model.safetensors") and not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space left on device") as caught:  # of a copy, the system names the source first
        files.write_atomic(tmp_path / "copy", lambda beside: shutil.copyfile(SHIP, "/dev/full"))
    assert caught.value.filename == str(tmp_path / "copy")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_log_on_a_full_disk_ends_no_training(capsys):
    with logging_to(Path("/dev/full")):
        for line in ("one", "two"):
            log.info(line)
    assert capsys.readouterr().err.count("/dev/full cannot be written") == 1


def test_a_graphics_card_has_its_own_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device}")
    assert machine.device_name("cuda:1") == "card cuda:1" and machine.device_name("cpu") == machine.processor()


def test_somebody_elses_faster_arithmetic_is_undone():
    code = ("import torch\n"
            "for name in ('tf32', 'medium'):\n"
            "    if name == 'medium':\n"
            "        torch.set_float32_matmul_precision(name)\n"
            "    elif hasattr(torch.backends, 'fp32_precision'):\n"
            "        torch.backends.fp32_precision = name\n"
            "    from eisnn_zoo.precision import strict_arithmetic; strict_arithmetic()\n"
            "    from eisnn_zoo.training.run import environment\n"
            "    conv = getattr(torch.backends.cudnn, 'conv', None)\n"
            "    print(environment(torch.device('cpu'))['tf32'], getattr(conv, 'fp32_precision', 'ieee'))\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "False ieee\n" * 2), done.stderr


def test_training_goes_on_where_nothing_can_be_compiled(tmp_path, monkeypatch):
    """Python too new for this torch, its headers missing: the compiler is there and of no use."""
    def refuse(*_, **__):
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", refuse)
    compiling.compile_failure.cache_clear()
    try:
        training = Training(recipe(epochs=1), digits(tmp_path / "data"), tmp_path / "run")
        assert any("3.99" in doubt and "goes without it" in doubt for doubt in training.doubts) or not compiling.can_compile("cpu")
        training.fit()
        assert training.run.environment["compile"] is False
    finally:
        compiling.compile_failure.cache_clear()


def test_a_gpu_that_this_torch_cannot_use(monkeypatch, caplog):
    zeros = torch.zeros

    def no_kernels(*size, device=None, **options):
        if torch.device(device).type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nand more")
        return zeros(*size, device=device, **options)

    monkeypatch.setattr(torch, "zeros", no_kernels)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with caplog.at_level("WARNING", "eisnn_zoo"):
        assert torch_device("auto").type == "cpu" and "no kernel image" in caplog.text and "and more" not in caplog.text
    with pytest.raises(UsageError, match=r"--device cuda: torch cannot use this GPU .*no kernel image.* or use --device cpu"):
        torch_device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert torch_device("cuda").type == "cuda", "each of several processes opens its own"


def test_an_onnxruntime_that_does_not_load_is_gone_without(tmp_path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('DLL load failed')")
    command = [sys.executable, "-m", "eisnn_zoo", "predict", str(SHIP), "--model", "ei_vgg8_cifar10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0 and "ship" in done.stdout and "torch on cpu" in done.stderr and "DLL load failed" in done.stderr, done
    done = subprocess.run([*command, "--backend", "onnx"], capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1 and "Visual C++ Redistributable" in done.stderr


def test_8_bit_kernels_are_for_x86(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not integer.available()


def test_a_signal_while_readers_start_reaches_nobody():
    before = signal.getsignal(signal.SIGTERM)
    with handled_by(signal.SIG_IGN):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
