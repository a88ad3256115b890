"""predict through the real command line, on real images; accuracy tests use the weights that come with the package."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from eisnn_zoo.config import base_config, find_model
from eisnn_zoo.errors import ZooError
from eisnn_zoo.files import write_atomic
from eisnn_zoo.inference import images, inputs, integer
from eisnn_zoo.inference.classify import classify, softmax
from eisnn_zoo.inference.events import frames, read_recording
from eisnn_zoo.inference.inputs import expand
from eisnn_zoo.inference.torch_runtime import TorchModel
from eisnn_zoo.locating import locate
from eisnn_zoo.table import default_weights
from eisnn_zoo.training.augment import pixels
from eisnn_zoo.weights import load_network

IMAGES = Path(__file__).parent / "data" / "cifar10"
DIGITS = IMAGES.parent / "mnist"
FILES = sorted(IMAGES.glob("*.png"))


def truth(path) -> str:
    return Path(path).stem.rpartition("_")[0]


def test_the_main_job(cli):
    """Most of twenty real test images get their right class, offline, with nothing but a folder named."""
    code, out, err = cli("predict", IMAGES, "--format", "jsonl", "--topk", 10)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [r["path"] for r in rows] == [str(p) for p in FILES]
    right = sum(r["label"] == truth(r["path"]) for r in rows)
    assert right >= 14, f"{right} of {len(rows)}"
    assert all(abs(sum(t["probability"] for t in r["top"]) - 1) < 1e-3 for r in rows)
    for word in (default_weights().name, "T = ", "32", "[0, 1]"):
        assert word in err


def test_one_image_gets_a_chart(cli):
    code, out, _ = cli("predict", FILES[0], "--topk", 3)
    lines = out.splitlines()
    assert code == 0 and lines[0] == str(FILES[0]) and len(lines) == 4 and "%" in lines[1]


def test_formats_agree(cli, tmp_path):
    _, as_json, _ = cli("predict", IMAGES, "--format", "json", "-q")
    _, as_csv, err = cli("predict", IMAGES, "--format", "csv", "-q")
    rows, table = json.loads(as_json), list(csv.DictReader(io.StringIO(as_csv)))
    assert err == "" and len(rows) == len(table) == len(FILES)
    assert [(r["path"], r["label"], f"{r['probability']:.6g}") for r in rows] == [(t["path"], t["label"], f"{float(t['probability']):.6g}") for t in table]
    out = tmp_path / "results.csv"
    assert cli("predict", IMAGES, "--output", out)[0] == 0
    assert out.read_text() == as_csv


def test_logits_are_those_of_the_network(cli):
    located = locate(default_weights().name)
    net = load_network(located)
    from PIL import Image

    x = np.stack([np.asarray(Image.open(p), np.float32).transpose(2, 0, 1) / np.float32(255) for p in FILES])
    with torch.no_grad():
        expected = softmax(net(torch.from_numpy(x)).numpy())
    rows = [json.loads(line) for line in cli("predict", IMAGES, "-f", "jsonl", "-k", 10, "-q", "--batch-size", 7)[1].splitlines()]
    names = located.config.label_names
    got = np.array([[dict((t["label"], t["probability"]) for t in r["top"])[n] for n in names] for r in rows])
    np.testing.assert_allclose(got, expected, atol=0.05)  # single spikes may flip between batch sizes
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.9


def test_bad_files_are_named_and_the_others_go_on(cli, tmp_path):
    (tmp_path / "a.png").write_bytes(FILES[0].read_bytes())
    (tmp_path / "b.png").write_text("no image")
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "d.png").write_bytes(FILES[1].read_bytes()[:300])
    (tmp_path / "e.jpg").write_bytes(FILES[2].read_bytes())
    code, out, err = cli("predict", tmp_path, tmp_path / "gone.png", "-f", "json")
    rows = json.loads(out)
    assert code == 1 and [bool(r["error"]) for r in rows] == [False, True, True, True, False, True]
    for name, why in (("b.png", "not an image"), ("c.png", "empty"), ("d.png", "damaged"), ("gone.png", "no such file")):
        assert any(name in line and why in line for line in err.splitlines())
    assert "Traceback" not in err and "4 of 6" in err


@pytest.mark.skipif(sys.platform == "win32", reason="permissions")
def test_an_unreadable_file(cli, tmp_path):
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    code, _, err = cli("predict", loop)
    assert code == 1 and "loop.png" in err and "Traceback" not in err


def test_stdin_list_and_pattern(cli, tmp_path):
    _, out, _ = cli("predict", "-", "-f", "json", stdin=FILES[3].read_bytes())
    assert json.loads(out)[0]["path"] == "-"
    listed = tmp_path / "list.txt"
    listed.write_text(f"{FILES[4]}\n\n{tmp_path}/none*\n{IMAGES / 'cat_8'}*\n")
    rows = json.loads(cli("predict", str(IMAGES / "cat_*.png"), "--from-file", listed, "-f", "json")[1])
    assert [Path(r["path"]).name for r in rows] == ["cat_0.png", "cat_8.png", FILES[4].name, "none*", "cat_8.png"]
    assert [r["label"] is None for r in rows] == [False, False, False, True, False]


def test_more_than_a_picture_has_is_not_read(cli, monkeypatch):
    most = FILES[0].stat().st_size
    for module in (images, inputs):
        monkeypatch.setattr(module, "MAX_BYTES", most)
    code, out, _ = cli("predict", "-", FILES[0], "-f", "json", stdin=bytes(most + 2))
    rows = json.loads(out)
    assert code == 1 and rows[0]["error"].startswith("stdin: larger than the") and rows[1]["label"]


def test_as_many_pictures_as_asked_are_computed_together(cli, monkeypatch):
    sizes, run = [], TorchModel.__call__
    monkeypatch.setattr(TorchModel, "__call__", lambda self, x: sizes.append(len(x)) or run(self, x))
    assert cli("predict", *FILES[:5], "--model", "ei_vgg8_cifar10", "--backend", "torch", "--batch-size", 2)[0] == 0
    assert sizes == [2, 2, 1]


def test_over_http(cli, monkeypatch):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/a.png"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(FILES[0].read_bytes() if found else b"")

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    code, out, _ = cli("predict", f"{base}/a.png", f"{base}/b.png", "-f", "json")
    monkeypatch.setattr(inputs, "MAX_DOWNLOAD", len(FILES[0].read_bytes()) - 1)
    assert cli("predict", f"{base}/a.png")[0] == 1
    server.shutdown()
    rows = json.loads(out)
    assert code == 1 and rows[0]["label"] and "could not be fetched" in rows[1]["error"]


@pytest.mark.parametrize("arguments, code, words", [
    ([], 2, ["at least one image"]),
    (["x.png", "-m", "ei_vgg9_cifar10"], 2, ["did you mean", "ei_vgg8_cifar10"]),
    (["x.png", "-m", "ei_vgg8_cifar10.nonsense"], 2, ["its tags"]),
    (["x.png", "-m", "ei_resnet34"], 2, ["no trained weights"]),
    (["x.png", "-m", "hf-hub:nobody/none"], 1, ["HF_HUB_OFFLINE"]),
    (["nothing/*.png"], 2, ["nothing matches"]),
    (["x.png", "--device", "quantum"], 2, ["quantum"]),
    (["x.png", "--output", "no/such/folder/x.csv"], 2, ["no folder"]),
    (["-", "-"], 2, ["once"]),
    ([""], 2, ["an input is empty"]),
    (["--from-file", "gone.txt"], 2, ["gone.txt"]),
    ([FILES[0], "nothing/*.png", "-f", "json"], 2, ["nothing matches"]),  # before the first is answered
    (["x.png", "--device", "meta", "--backend", "torch"], 2, ["no such device"]),
])
def test_wrong_requests(arguments, code, words, cli):
    got, out, err = cli("predict", *arguments)
    assert got == code and out == "" and "Traceback" not in err
    assert all(w in err for w in words), err


def test_a_mistyped_option_exits_with_2(cli):
    assert cli("predict", "x.png", "--modell", "y")[0] == 2


def test_cuda_without_a_gpu_says_so(cli):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, _, err = cli("predict", FILES[0], "--device", "cuda")
    assert code == 2 and "--device cpu" in err


def test_output_to_standard_output_by_its_name():
    command = [sys.executable, "-m", "eisnn_zoo", "predict", FILES[0], "--format", "csv", "--output", "/dev/stdout"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)  # a pipe
    assert done.stdout.startswith("path,label,")


def test_output_to_a_pipe_and_through_a_link(cli, tmp_path):
    pipe, link, real = tmp_path / "pipe", tmp_path / "link.csv", tmp_path / "real.csv"
    os.mkfifo(pipe)
    link.symlink_to(real)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert cli("predict", FILES[0], "--format", "csv", "--output", pipe)[0] == 0
    reader.join(20)
    assert cli("predict", FILES[0], "--output", link)[0] == 0
    assert read[0] == real.read_text() != "" and link.is_symlink() and pipe.is_fifo()


@pytest.mark.parametrize("protected, words", [("folder", "nothing can be written into"), ("file", "is write-protected")])
def test_an_output_that_cannot_be_replaced_is_said_before_the_work(cli, tmp_path, monkeypatch, protected, words):
    (tmp_path / "kept").mkdir()
    out, link = tmp_path / "kept" / "out.csv", tmp_path / "link.csv"
    out.write_text("before")
    link.symlink_to(out)
    closed = out if protected == "file" else out.parent  # to others than root, who runs these tests in containers
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or Path(path) != closed.resolve())
    for name in (out, link):
        code, _, err = cli("predict", FILES[0], "--output", name)
        assert code == 2 and words in err and out.read_text() == "before"


def test_names_that_are_no_text_and_lists_that_are_none(cli, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes(FILES[0].read_bytes())
    out = tmp_path / "out.csv"
    assert cli("predict", tmp_path, "--output", out)[0] == 0 and b"caf\xe9.png" in out.read_bytes()
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbf" + os.fsencode(FILES[0]) + b"\n")  # as Windows writes lists
    assert cli("predict", "--from-file", tmp_path / "bom.txt")[0] == 0
    assert cli("predict", "--from-file", "-", stdin="\ufeff".encode() + os.fsencode(FILES[0]) + b"\r\n")[0] == 0
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[os.fsencode(FILES[0]) + b"\n"])
    writer.start()
    assert cli("predict", "--from-file", tmp_path / "pipe")[0] == 0  # as <(find ...) in a shell is
    writer.join()
    (tmp_path / "cut.txt").write_bytes("a.png\n".encode("utf-16")[:-1])
    code, _, err = cli("predict", "--from-file", tmp_path / "cut.txt")
    assert code == 2 and "cut.txt is damaged" in err
    (tmp_path / "empty.txt").write_text("\n")
    code, _, err = cli("predict", "--from-file", tmp_path / "empty.txt")
    assert code == 2 and "empty.txt names no input" in err
    code, _, err = cli("predict", "--from-file", FILES[0])
    assert code == 1 and "this should not happen" not in err
    code, _, err = cli("predict", "http://127.0.0.1:9/a b.png")
    assert code == 1 and "could not be fetched" in err


def test_a_stream_that_lacks_the_letters_of_a_name(tmp_path):
    for name in ("schiff \u8239.png", os.fsdecode(b"caf\xe9.png")):
        (tmp_path / name).write_bytes(FILES[0].read_bytes())
    ran = subprocess.run([sys.executable, "-c", "from eisnn_zoo.cli import main; main()", "predict", str(tmp_path), "-q", "-f", "csv"],
                         capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert b"caf\xe9.png" in ran.stdout and b"schiff \\u8239.png" in ran.stdout
    ran = subprocess.run([sys.executable, "-m", "eisnn_zoo", "predict", str(tmp_path), "-q", "-f", "json"], capture_output=True,
                         env={**os.environ, "PYTHONIOENCODING": "latin-1"}, timeout=120)
    assert {Path(row["path"]).name for row in json.loads(ran.stdout)} >= {"schiff \u8239.png"}


def test_waiting_for_stdin_can_be_interrupted():
    # A suite started in the background ignores SIGINT, and its children would inherit that.
    code = "import threading, os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); threading.Timer(8, os.kill, (os.getpid(), signal.SIGINT)).start()\n" \
           "from eisnn_zoo.cli import main; import sys; sys.argv[1:] = ['predict', '-', '-q']; main()"
    done = subprocess.run([sys.executable, "-c", code], stdin=(pipe := os.pipe())[0], capture_output=True, text=True, timeout=60)
    os.close(pipe[1])
    assert done.returncode == 130 and "Fatal" not in done.stderr, done.stderr


def test_a_picture_too_thin_to_be_resized_is_named_and_the_others_go_on(cli, tmp_path):
    Image.new("L", (1, 1_100_000)).save(tmp_path / "thin.png")
    (tmp_path / "whole.png").write_bytes(FILES[0].read_bytes())
    code, out, err = cli("predict", tmp_path, "-f", "jsonl")
    assert code == 1 and f"{tmp_path / 'thin.png'}: 1 x 1100000 pixels are too long and thin" in err
    assert [bool(json.loads(line)["label"]) for line in out.splitlines()] == [False, True]


def test_a_folder_that_leads_back_to_itself(cli, tmp_path):
    (tmp_path / "ship.png").write_bytes(FILES[0].read_bytes())
    (tmp_path / "again").symlink_to(tmp_path)
    assert [Path(name).name for name in expand([str(tmp_path)])] == ["ship.png"]


def test_an_onnx_file_of_other_weights_is_refused(cli, tmp_path):
    source = locate("ei_vgg8_cifar10").path.parent
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, tmp_path / name)
    shutil.copy(locate("ei_resnet18_cifar10.zoo").path.parent / "model.onnx", tmp_path / "model.onnx")
    code, out, err = cli("predict", FILES[0], "--model", tmp_path)
    assert (code, out) == (1, "") and "model.onnx was not made from the weights beside it" in err
    code, out, _ = cli("verify", tmp_path)
    assert code == 1 and "model.onnx was not made from the weights beside it" in out
    shutil.copy(source / "model.onnx", tmp_path / "model.onnx")
    assert cli("predict", FILES[0], "--model", tmp_path)[0] == 0 and cli("verify", tmp_path)[0] == 0
    shutil.copy(tmp_path / "model.onnx", tmp_path / "M.ONNX")
    assert cli("predict", FILES[0], "--model", tmp_path / "M.ONNX")[0] == 0
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "label_names": config["label_names"][::-1]}))
    for backend in ("auto", "torch"):  # the weight file's own header has the right ones
        code, out, err = cli("predict", FILES[0], "--model", tmp_path, "--backend", backend)
        assert (code, out) == (1, "") and "its own header disagrees on label_names" in err


@pytest.mark.parametrize("options, words", [({"num_classes": 0}, "gives features, no classes"), ({"global_pool": ""}, "gives features, no classes"),
                                            ({"in_chans": 4}, "1 or 3 channels, the network takes 4")])
def test_networks_without_an_answer_for_a_picture_say_so(cli, tmp_path, options, words):
    model = timm.create_model("ei_vgg8_cifar10", **options)
    model.mark_initialised()
    timm.models.save_for_hf(model, tmp_path, model_args=model.config, safe_serialization=True)
    code, _, err = cli("predict", FILES[0], "--model", tmp_path)
    assert code in (1, 2) and words in err and "should not" not in err, err
    if "features" in words:
        code, _, err = cli("export", tmp_path, "--output", tmp_path / "x.onnx")
        assert code == 2 and words in err and not (tmp_path / "x.onnx").exists(), err


def test_an_mlp_is_for_the_pixels_it_was_built_with(cli, tmp_path):
    """timm writes its name's own into the configuration."""
    model = timm.create_model("ei_mlp2_mnist", input_size=(32, 32))
    model.mark_initialised()
    timm.models.save_for_hf(model, tmp_path, model_args=model.config, safe_serialization=True)
    assert cli("predict", DIGITS, "--model", tmp_path)[0] == 0


def test_results_never_replace_what_is_read(cli, tmp_path):
    picture, names = tmp_path / "ship.png", tmp_path / "names"
    picture.write_bytes(FILES[0].read_bytes())
    names.write_text(f"{picture}\n")
    for arguments, word in (((picture, "-o", picture), "is what is read"), (("--from-file", names, "-o", names), "is what is read"),
                            ((tmp_path, "-o", tmp_path / "other.JPG"), "has the name of what is read")):
        code, out, err = cli("predict", *arguments)
        assert (code, out) == (2, "") and word in err
    network = tmp_path / "network"
    network.write_bytes(b"weights")
    for model, wrong in ((network, network), (network, tmp_path / "x.onnx"), ("ei_vgg8_nmnist", tmp_path / "7.bin")):
        code, _, err = cli("predict", picture, "--model", model, "-o", wrong)
        assert code == 2 and "is read" in err
    assert picture.read_bytes() == FILES[0].read_bytes() and names.read_text() == f"{picture}\n" and network.read_bytes() == b"weights"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["names", "network", "ship.png"]


def test_a_folder_that_cannot_be_read_is_one_error_among_the_results(cli, tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ship.png").write_bytes(FILES[0].read_bytes())
    listed = Path.iterdir

    def iterdir(folder):
        if folder.name == "b":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    code, out, err = cli("predict", tmp_path, "-f", "json")
    assert code == 1 and [bool(row["error"]) for row in json.loads(out)] == [False, True, False] and "1 of 3 inputs" in err


def test_closed_and_redirected_streams(tmp_path):
    """What stood in the file that stdout goes to stays there; a stream that is closed is as good as empty."""
    predict = f"'{sys.executable}' -m eisnn_zoo predict -q"
    one = f"{predict} '{FILES[0]}'"
    shell = f"echo before > log; {one} -f csv -o /dev/stdout >> log; echo after >> log; {one} <&-; {predict} --from-file - <&-"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True)
    lines = (tmp_path / "log").read_text().splitlines()
    assert (lines[0], lines[1][:5], len(lines), lines[3]) == ("before", "path,", 4, "after"), lines
    assert done.returncode == 2 and "should not happen" not in done.stderr and done.stdout.count(str(FILES[0])) == 1, done.stderr


def test_a_failed_write_leaves_the_old_file(cli, tmp_path, monkeypatch):
    out = tmp_path / "results.csv"
    out.write_text("before")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    code, _, err = cli("predict", FILES[0], "--output", out)
    assert code == 1 and "No space left" in err and out.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]


def test_who_may_read_a_file_is_left_to_the_umask_or_to_the_one_before(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "results.csv", "path")
    finally:
        os.umask(before)
    assert (tmp_path / "results.csv").stat().st_mode & 0o777 == 0o640
    (tmp_path / "results.csv").chmod(0o600)
    write_atomic(tmp_path / "results.csv", "again")
    assert (tmp_path / "results.csv").stat().st_mode & 0o777 == 0o600


def test_event_model(cli, model_folder, tmp_path):
    folder = model_folder("ei_vgg8_cifar10dvs", time_steps=3)
    np.save(tmp_path / "frames.npy", np.random.default_rng(0).poisson(0.3, (3, 2, 48, 48)))
    np.save(tmp_path / "short.npy", np.zeros((2, 2, 48, 48)))
    code, out, _ = cli("predict", tmp_path / "frames.npy", tmp_path / "short.npy", FILES[0], "-m", folder, "-f", "json")
    rows = json.loads(out)
    assert code == 1 and rows[0]["label"] in base_config(find_model("ei_vgg8_cifar10dvs")).label_names
    assert "instead of" in rows[1]["error"] and "event frames" in rows[2]["error"]


def test_recordings_of_an_event_camera(cli, tmp_path):
    """As N-MNIST has them, and as spikingjelly unpacks them."""
    with np.load(IMAGES.parent / "nmnist_3.npz") as data:
        x, y, p, offset, label = (data[k] for k in ("x", "y", "p", "offset", "label"))
    for i, (a, b) in enumerate(pairwise(offset)):
        np.savez(tmp_path / f"{i}.npz", x=x[a:b], y=y[a:b], p=p[a:b])
        np.stack([x[a:b], y[a:b], p[a:b] << 7, 0 * p[a:b], 0 * p[a:b]], 1).astype(np.uint8).tofile(tmp_path / f"{i}.bin")
    (tmp_path / "3.bin").write_bytes(b"123")
    files = [tmp_path / f"{i}.{kind}" for kind in ("npz", "bin") for i in range(3)]
    code, out, _ = cli("predict", *files, IMAGES.parent / "nmnist_3.npz", tmp_path / "3.bin", tmp_path / "4.bin", "-m", "ei_vgg8_nmnist.zoo", "-f", "json")
    rows = json.loads(out)
    assert code == 1 and [row["label"] for row in rows[:6]] == [*map(str, label)] * 2
    assert rows[0]["top"] == rows[3]["top"]
    (tmp_path / "test" / "7").mkdir(parents=True)
    for i in range(3):
        (tmp_path / f"{i}.bin").rename(tmp_path / "test" / "7" / f"{i}.{'BIN' if i else 'bin'}")
    found = json.loads(cli("predict", tmp_path / "test", "-m", "ei_vgg8_nmnist.zoo", "-f", "json")[1])  # a folder without pictures
    assert [row["top"] for row in found] == [row["top"] for row in rows[3:6]]
    assert [row["error"].partition(f"{tmp_path}/")[2] or row["error"] for row in rows[7:]] == [
        "3.bin is damaged: 3 bytes are no whole number of events", "4.bin: there is no such file"]
    assert "holds 3 recordings: give one, or use eisnn-zoo eval" in rows[6]["error"]


def test_a_recording_that_is_strange_is_no_crash(cli, tmp_path):
    events = {key: np.zeros(20, int) for key in "xyp"}
    np.savez(tmp_path / "0.npz", **events, offset=0)  # a number, and no list
    (tmp_path / "1.bin").symlink_to("/proc/self/mem")  # a file whose first byte cannot be read
    code, out, _ = cli("predict", tmp_path / "0.npz", tmp_path / "1.bin", "-m", "ei_vgg8_nmnist.zoo", "-f", "json")
    rows = json.loads(out)
    assert code == 1 and rows[0]["label"] and rows[1]["error"] == f"{tmp_path / '1.bin'}: input/output error"


def test_a_recording_of_a_larger_sensor_is_what_training_makes_of_it(tmp_path):
    rng, config = np.random.default_rng(0), base_config(find_model("ei_vgg8_cifar10dvs"))
    x, y, p = rng.integers(0, 128, 5000), rng.integers(0, 128, 5000), rng.integers(0, 2, 5000)
    np.savez(tmp_path / "a.npz", x=x, y=y, p=p)
    trained = pixels(torch.from_numpy(frames(x, y, p, 10, 128))[None], 48)[0]
    torch.testing.assert_close(torch.from_numpy(read_recording(str(tmp_path / "a.npz"), config, 10)), trained)


def test_time_steps_change(cli):
    one = json.loads(cli("predict", FILES[0], "-T", 1, "-f", "json")[1])
    four = json.loads(cli("predict", FILES[0], "-T", 4, "-f", "json")[1])
    assert one[0]["top"] != four[0]["top"]


def test_reading_ahead_is_bounded():
    """A hundred thousand names need no more memory than a hundred: the stream is never more than a few batches ahead."""
    taken = 0

    def names():
        nonlocal taken
        for _ in range(100_000):
            taken += 1
            yield str(FILES[0])

    config = base_config(find_model("ei_vgg8_cifar10"))
    results = classify(names(), lambda x: np.zeros((len(x), 10), np.float32), config, 4, batch_size=8)
    for done in range(1, 101):
        next(results)
        assert taken <= done + 3 * 8
    results.close()


def test_interrupted_output_pipe_is_quiet():
    command = f"{sys.executable} -m eisnn_zoo predict {IMAGES} -f jsonl -q --batch-size 1 | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and done.stdout.count("\n") == 1


def test_the_onnx_file_gives_the_same_answers_without_torch():
    code = (f"import sys\nfrom eisnn_zoo.cli import main\nsys.argv = ['eisnn-zoo', 'predict', {str(IMAGES)!r}, '-f', 'jsonl', '--backend', 'onnx']\n"
            "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\nprint(sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, heavy = done.stdout.splitlines()
    assert heavy == "[]" and "onnxruntime on cpu" in done.stderr
    onnx = [json.loads(line) for line in lines]
    done = subprocess.run([sys.executable, "-m", "eisnn_zoo", "predict", str(IMAGES), "-f", "jsonl", "--backend", "torch"], capture_output=True, text=True)
    torch_ = [json.loads(line) for line in done.stdout.splitlines()]
    assert "torch on cpu" in done.stderr
    assert np.mean([a["label"] == b["label"] for a, b in zip(onnx, torch_)]) >= 0.9
    close = [abs(a["probability"] - b["probability"]) < 1e-3 for a, b in zip(onnx, torch_)]
    assert np.mean(close) >= 0.8


def test_early_exit_says_how_many_steps_it_took(cli):
    def predict(*arguments):
        return cli("predict", "--model", "ei_vgg8_cifar10", *arguments)

    last = locate("ei_vgg8_cifar10").config.options["time_steps"]
    code, out, err = predict(IMAGES, "--early-exit", 0.8, "-f", "json")
    rows = json.loads(out)
    steps = [r["time_steps"] for r in rows]
    assert code == 0 and set(steps) >= {1, last} and f"{np.mean(steps):.2f} of {last} steps on average" in err and "torch on cpu" in err
    assert all(r["probability"] >= 0.8 for r in rows if r["time_steps"] < last)
    never = json.loads(predict(IMAGES, "--early-exit", 1, "-f", "json", "-q")[1])
    whole = json.loads(predict(IMAGES, "--backend", "torch", "-f", "json", "-q")[1])
    assert {r["time_steps"] for r in never + whole} == {last}
    assert np.mean([abs(a["probability"] - b["probability"]) < 1e-3 for a, b in zip(never, whole)]) >= 0.9
    assert f"after {steps[0]} time step" in predict(FILES[0], "--early-exit", 0.8)[1]
    (row,) = csv.DictReader(io.StringIO(predict(FILES[0], "--early-exit", 0.8, "-f", "csv")[1]))
    assert row["time_steps"] == str(steps[0])


@pytest.mark.skipif(not integer.available(), reason="oneDNN's integer convolution is for x86")
def test_8_bit_weights_answer_nearly_the_same(cli):
    code, out, err = cli("predict", IMAGES, "--precision", "int8", "-f", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and "torch on cpu in int8" in err
    whole = [json.loads(line) for line in cli("predict", IMAGES, "-f", "jsonl", "-q")[1].splitlines()]
    same = [a["label"] == b["label"] for a, b in zip(rows, whole)]
    assert np.mean(same) >= 0.85 and [r["top"] for r in rows] != [r["top"] for r in whole]


def test_compiled_answers_are_the_same(cli):
    digits = DIGITS, "-m", "ei_mlp4_mnist", "-f", "jsonl"
    as_it_is, compiled = cli("predict", *digits), cli("predict", *digits, "--compile")
    assert compiled[0] == 0, compiled[2]
    for a, b in zip(*([json.loads(line) for line in out.splitlines()] for _, out, _ in (as_it_is, compiled)), strict=True):
        assert a["label"] == b["label"] and a["probability"] == pytest.approx(b["probability"], abs=1e-4)


@pytest.mark.parametrize("arguments, words", [
    (["--precision", "int8", "--backend", "onnx"], ["--precision needs torch"]), (["--precision", "int4"], ["--precision int4", "fp32 or int8"]),
    (["--precision", "int8", "-m", "ei_mlp4_mnist"], ["int8 cannot be used here"]),
    (["--early-exit", "0.9", "--backend", "onnx"], ["--early-exit needs", "--backend torch"]), (["--early-exit", "0"], ["--early-exit 0", "(0, 1]"]),
    (["--early-exit", "0.9", "-m", "x.onnx"], ["--early-exit needs"]), (["--compile", "--backend", "onnx"], ["--compile needs torch"]),
    (["--compile", "--early-exit", "0.9"], ["do not go together"]), (["--device", "tensorrt", "--backend", "torch"], ["tensorrt", "--device cpu"]),
    (["--device", "tensorrt", "--precision", "int8"], ["--precision needs torch"]), (["--device", "tensorrt", "--early-exit", "0.9"], ["--early-exit needs torch"]),
])
def test_what_cannot_be_had_together(arguments, words, cli):
    code, out, err = cli("predict", FILES[0], *arguments)
    assert code == 2 and out == "" and all(w in err for w in words) and err.count("\n") == 1, err


@pytest.mark.parametrize("arguments, words", [(["--backend", "tensorflow"], ["choose one of"]), (["-m", "gone.onnx"], ["gone.onnx"]),
                                              (["-m", "x.onnx", "--backend", "torch"], ["--backend torch"])])
def test_wrong_backends(arguments, words, cli):
    code, out, err = cli("predict", FILES[0], *arguments)
    assert code == 2 and out == "" and all(w in err for w in words), err


def test_a_folder_with_a_pipe_and_a_giant_file(cli, tmp_path):
    (tmp_path / "a.png").write_bytes(FILES[0].read_bytes())
    os.mkfifo(tmp_path / "pipe.png")  # which would be waited for
    with open(tmp_path / "z.png", "wb") as file:
        file.truncate(2**40)  # no byte of it is on the disk
    code, out, err = cli("predict", tmp_path, "-f", "csv")
    assert code == 1 and "a.png,airplane" in out and "pipe.png" not in out + err and "larger than the 512 MB" in out + err


def test_a_postscript_program_is_not_run(cli, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    code, out, err = cli("predict", tmp_path / "x.png")
    assert code == 1 and "a PostScript program" in out + err


def test_recordings_with_impossible_names_cost_themselves_alone(cli, tmp_path):
    (tmp_path / "list.txt").write_text(f"{'x' * 300}.bin\n")
    code, out, err = cli("predict", "--from-file", tmp_path / "list.txt", "-m", "ei_vgg8_nmnist")
    assert code == 1 and "no such file" in out + err


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")])
def test_too_little_memory_is_one_sentence(cli, monkeypatch, error):
    from eisnn_zoo.inference import classify

    def full(*_):
        raise error

    monkeypatch.setattr(classify, "read_input", full)
    code, _, err = cli("predict", FILES[0])
    assert code == 1 and "not enough memory" in err and "should not happen" not in err


def test_a_dead_link_is_an_error_of_its_own(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "b.png").write_bytes(b"x")
    assert [Path(name).name for name in expand([str(tmp_path)])] == ["a.png", "b.png"]


def test_a_recording_without_events(tmp_path):
    np.savez(tmp_path / "none.npz", x=np.zeros(0, np.int16), y=np.zeros(0, np.int16), p=np.zeros(0, np.int8))
    with pytest.raises(ZooError, match=r"none\.npz holds no events"):
        read_recording(str(tmp_path / "none.npz"), base_config(find_model("ei_vgg8_nmnist")), 10)
