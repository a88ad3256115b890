"""ONNX files answer as the network does, at any batch size, and carry what is needed to use them."""

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import since_torch_2_7
from PIL import Image

from eisnn_zoo.config import read_config
from eisnn_zoo.ei import EILayer
from eisnn_zoo.ei_init import initialize
from eisnn_zoo.errors import UsageError, ZooError
from eisnn_zoo.files import sha256
from eisnn_zoo.inference import backends, onnx_kernels
from eisnn_zoo.inference.export import BATCHES, drawn_inputs, export, verify
from eisnn_zoo.inference.folding import FoldedEI, fold
from eisnn_zoo.inference.images import open_image, preprocess
from eisnn_zoo.inference.onnx_kernels import quantise
from eisnn_zoo.inference.onnx_runtime import OnnxModel
from eisnn_zoo.inference.torch_runtime import TorchModel
from eisnn_zoo.locating import locate
from eisnn_zoo.table import Weights
from eisnn_zoo.weights import load_network, save_network

pytestmark = since_torch_2_7
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

FILES = sorted((Path(__file__).parent / "data" / "cifar10").glob("*.png"))


def published(folder: Path, name: str, x: np.ndarray, **options):
    """A model folder with a network that E-I Init has seen x for."""
    from eisnn_zoo.config import base_config, find_model
    from eisnn_zoo.networks import build
    from eisnn_zoo.weights import save_network

    network = build(name, **options)
    initialize(network, torch.from_numpy(x), 2025)
    base = base_config(find_model(name), "test")
    save_network(folder, network.state_dict(), replace(base, options={**base.options, **options}))
    return locate(str(folder))


@pytest.fixture(scope="module")
def pictures():
    return np.stack([preprocess(open_image(f), (3, 32, 32)) for f in FILES])


@pytest.fixture(scope="module")
def vgg8(tmp_path_factory, pictures):
    return published(tmp_path_factory.mktemp("vgg8"), "ei_vgg8_cifar10", pictures, time_steps=2)


@pytest.fixture(scope="module")
def fp32(vgg8, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "vgg8.onnx"
    export(vgg8, path)
    return path


@pytest.fixture(scope="module")
def int8(fp32, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "vgg8.int8.onnx"
    model = onnx.load(fp32)
    quantise(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def test_the_file_says_nothing_of_the_machine_that_made_it(fp32):
    places = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "site-packages", "stack_trace", ".py")
    assert not [place for place in places if place.encode() in fp32.read_bytes()]


def test_answers_are_the_network_s_at_any_batch(vgg8, fp32, pictures):
    found = verify(fp32, vgg8, pictures)
    assert found.samples == 10 and found.top1 == 1 and found.close >= 0.9, found
    run = OnnxModel(fp32, "cpu")
    assert np.isfinite(run(np.zeros((3, 3, 32, 32), np.float32))).all()
    np.testing.assert_allclose(run(pictures[:13])[4:5], run(pictures[4:5]), atol=1e-4)


def test_both_runtimes_take_arrays_as_they_come_and_travel(vgg8, fp32, pictures):
    read_only = pictures[:2].astype(np.float64)[..., ::-1]
    read_only.flags.writeable = False
    for run in (OnnxModel(fp32, "cpu"), TorchModel(vgg8, "cpu")):
        expected = run(np.ascontiguousarray(read_only, np.float32))
        np.testing.assert_array_equal(run(read_only), expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(run))(read_only), expected)


def test_threads_share_a_network_that_takes_single_steps(vgg8, pictures):
    run = TorchModel(vgg8, "cpu")
    batches = [pictures[:3], pictures[3:8]] * 4
    expected = [run.early_exit(x, 1.0)[0] for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for (logits, _), alone in zip(pool.map(lambda x: run.early_exit(x, 1.0), batches), expected):
            np.testing.assert_allclose(logits, alone, rtol=1e-4, atol=1e-4)


def test_a_file_that_fails_in_silence_alone_is_found(vgg8, fp32, pictures, monkeypatch):
    answer = OnnxModel.__call__

    def fails(self, x):
        logits = answer(self, x)
        logits[~x.reshape(len(x), -1).any(1)] = np.nan
        return logits

    monkeypatch.setattr(OnnxModel, "__call__", fails)
    with pytest.raises(ZooError, match="not finite"):
        verify(fp32, vgg8, pictures)


def test_the_file_explains_itself(vgg8, fp32):
    run = OnnxModel(fp32, "cpu")
    assert run.config == vgg8.config.to_json() and run.config["label_names"][3] == "cat"
    assert run.config["pretrained_cfg"]["mean"] == [0, 0, 0]
    assert (run.time_steps, run.precision, run.input_shape, run.device) == (2, "fp32", (3, 32, 32), "cpu")
    assert run.metadata["source_sha256"] == sha256(vgg8.path)
    assert [p.name for p in fp32.parent.iterdir()] == [fp32.name]  # no side file, nothing left over
    model = onnx.load(fp32)
    assert "RGB pixels divided by 255 and nothing else, float32 [batch, 3, 32, 32]" in model.doc_string
    assert model.opset_import[0].version == 20
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_torch_that_is_too_old_to_export_is_said(vgg8, tmp_path, monkeypatch):
    monkeypatch.setattr("eisnn_zoo.inference.export.version", lambda package: "2.6.0+cu124")
    with pytest.raises(ZooError, match=r"needs torch 2\.7 or newer, and this is 2\.6\.0"):
        export(vgg8, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_asked_to_end_it_leaves_nothing_behind(tmp_path):
    code = ("import os, signal, time; from eisnn_zoo.inference import export\n"
            "def stopped(located, path, *rest): path.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
            "export.export = stopped; from eisnn_zoo.cli import main; main()")
    done = subprocess.run([sys.executable, "-c", code, "export", "ei_mlp2_mnist", "-o", str(tmp_path / "x.onnx")], capture_output=True,
                          text=True, timeout=120, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 128 + 15 and "Traceback" not in done.stderr, done
    assert not list(tmp_path.iterdir())


def test_event_networks(tmp_path):
    x = np.random.default_rng(0).poisson(0.3, (8, 3, 2, 48, 48)).astype(np.float32)
    located = published(tmp_path, "ei_vgg8_cifar10dvs", x, time_steps=3)
    export(located, tmp_path / "dvs.onnx")
    x[1, 0] = 0  # a silent first frame; verify itself blanks the whole of the last sample
    found = verify(tmp_path / "dvs.onnx", located, x)
    assert found.top1 >= 0.9 and found.close >= 0.9, found
    assert OnnxModel(tmp_path / "dvs.onnx").input_shape == (3, 2, 48, 48)


def test_time_steps_and_baselines(tmp_path, model_folder):
    located = locate(str(model_folder("bn_mlp4_mnist")))
    export(located, tmp_path / "bn.onnx", time_steps=3)
    assert verify(tmp_path / "bn.onnx", located).top1 >= 0.9
    run = OnnxModel(tmp_path / "bn.onnx")
    assert run.time_steps == 3 and run.config["model_args"]["time_steps"] == 3


def test_int8_rounds_weights_and_nothing_else(vgg8, fp32, int8, pictures):
    """onnxruntime's integers give what torch gives in float64 with the same rounded weights: the activations lost nothing."""
    assert int8.stat().st_size < 0.35 * fp32.stat().st_size
    folded = fold(load_network(vgg8).double())
    layers = [m for m in folded.modules() if isinstance(m, FoldedEI)]
    for layer in layers[1:]:
        scale = layer.weight.abs().amax((1, 2, 3), keepdim=True) / 127
        layer.weight.copy_((layer.weight / scale).round() * scale)
    with torch.inference_mode():
        expected = folded(torch.from_numpy(pictures).double()).numpy()
    close = np.abs(OnnxModel(int8, "cpu")(pictures) - expected).max(1) < 1e-4 * np.abs(expected).max()
    assert close.mean() >= 0.8, close  # a weight half-way between two integers may go the other way, and a spike with it


@pytest.mark.parametrize("name, size", [("ei_vgg8_cifar10", 10.4e6), ("ei_mlp4_mnist", 2.4e6)])
def test_published_weights_are_kept_in_half_precision_and_nothing_is_rounded(tmp_path, monkeypatch, name, size):
    """The file has the weights by the paper's names; its answers are those of kernels folded before."""
    located, small, folded = locate(name), tmp_path / "small.onnx", tmp_path / "folded.onnx"
    export(located, small)
    monkeypatch.setattr(onnx_kernels, "keep_as_trained", lambda model, network: None)
    export(located, folded)
    assert small.stat().st_size < min(size, 0.55 * folded.stat().st_size)
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(small).graph.initializer}
    layers = {path: m for path, m in load_network(located).named_modules() if isinstance(m, EILayer)}
    assert len(layers) >= 3
    for path, layer in layers.items():
        np.testing.assert_array_equal(kept[f"{path}.W_EE.half"], layer.ee.weight.detach().flatten(1).half().numpy())
        assert f"{path}.weight" not in kept
    x = drawn_inputs(OnnxModel(small, "cpu").input_shape, 8)
    a, b = (OnnxModel(path, "cpu")(x) for path in (small, folded))
    same = np.abs(a - b).max(1) < 1e-4 * np.abs(b).max()
    assert same.mean() >= 0.8 and b.std() > 0.1, same  # the runtime may fold in another order, which can flip a spike


def test_weights_that_half_precision_would_round_are_kept_folded(fp32):
    kept = {t.name for t in onnx.load(fp32).graph.initializer}
    assert "stages.1.layers.0.current.weight" in kept and not [n for n in kept if "W_E" in n]


def test_fp16_halves_the_file(vgg8, fp32, tmp_path, pictures):
    export(vgg8, tmp_path / "half.onnx", "fp16")
    assert 0.4 < (tmp_path / "half.onnx").stat().st_size / fp32.stat().st_size < 0.6
    found = verify(tmp_path / "half.onnx", vgg8, pictures)
    assert found.top1 >= 0.7 and OnnxModel(tmp_path / "half.onnx").precision == "fp16", found


def test_a_wrong_file_is_found_out(vgg8, fp32, tmp_path, pictures):
    model = onnx.load(fp32)
    kernel = next(t for t in model.graph.initializer if t.name.endswith("current.weight"))
    kernel.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(kernel), kernel.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(ZooError, match="does not answer as the network does"):
        verify(tmp_path / "wrong.onnx", vgg8, pictures)


def test_drawn_inputs_are_pictures():
    x = drawn_inputs((3, 32, 32), 7)
    assert x.shape == (7, 3, 32, 32) and x.min() == 0 and x.max() <= 1 and (x.std((1, 2, 3)) > 0.05).all()
    assert np.abs(np.round(x * 255) - x * 255).max() < 1e-4
    assert drawn_inputs((4, 2, 16, 16), 3).shape == (3, 4, 2, 16, 16)


def test_running_needs_neither_torch_nor_timm(fp32):
    code = ("import sys, numpy as np; from eisnn_zoo.inference.onnx_runtime import OnnxModel;"
            f"print(OnnxModel({str(fp32)!r}, 'cpu')(np.zeros((1, 3, 32, 32), np.float32)).shape);"
            "print({'torch', 'timm', 'onnx'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(1,", "10)", "set()"]


def test_nothing_is_reported_to_the_makers_of_onnxruntime(fp32, tmp_path):
    """Recent versions write what they would report into the home folder first."""
    code = f"from eisnn_zoo.inference.onnx_runtime import OnnxModel; import numpy as np; OnnxModel({str(fp32)!r}, 'cpu')(np.zeros((1, 3, 32, 32), np.float32))"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}, check=True)
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name.lower() or "Microsoft" in path.name]


# ---- errors --------------------------------------------------------------------------------------------------------


def test_bad_files_are_named(tmp_path, fp32):
    (tmp_path / "noise.onnx").write_bytes(b"no model at all" * 100)
    model = onnx.load(fp32)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    for name, words in (("gone.onnx", "there is no file"), ("noise.onnx", "no ONNX file that onnxruntime can run"),
                        ("bare.onnx", "carries no configuration")):
        with pytest.raises(ZooError, match=words) as caught:
            OnnxModel(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["flat", "list", "T", "answers"])
def test_networks_that_others_wrote_are_refused(tmp_path, change):
    config = [] if change == "list" else {"num_classes": 10}
    shape = ["N", 784] if change == "flat" else ["N", 1, 28, 28]
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["flat"]), onnx.helper.make_node("Slice", ["flat", "zero", "ten", "one"], ["logits"])]
    numbers = [onnx.helper.make_tensor(k, onnx.TensorProto.INT64, [1], [v]) for k, v in (("zero", 0), ("ten", 10), ("one", 1))]
    if change == "answers":  # one row, whatever the batch is
        nodes[1].output[0] = "all"
        nodes.append(onnx.helper.make_node("Slice", ["all", "zero", "one", "zero"], ["logits"]))
    graph = onnx.helper.make_graph(nodes, "g", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
                              [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 10])], numbers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    for key, value in {"config": json.dumps(config), "time_steps": "10001" if change == "T" else "4", "precision": "fp32"}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, tmp_path / "x.onnx")
    if change == "answers":
        with pytest.raises(ZooError, match="no logits"):
            OnnxModel(tmp_path / "x.onnx")(np.zeros((3, 1, 28, 28), np.float32))
        return
    with pytest.raises(ZooError, match=r"x\.onnx .*eisnn-zoo export"):
        OnnxModel(tmp_path / "x.onnx")


@pytest.mark.parametrize("change", ["two outputs", "another width", "a fixed batch", "whole numbers", "T", "precision", "deep"])
def test_files_that_are_no_export_are_refused(tmp_path, fp32, change):
    model = onnx.load(fp32)
    graph, said = model.graph, {entry.key: entry for entry in model.metadata_props}
    if change == "two outputs":
        graph.output.add().CopyFrom(graph.output[0])
        graph.node.add(op_type="Identity", input=["logits"], output=["again"])
        graph.output[1].name = "again"
    elif change == "another width":
        said["config"].value = said["config"].value.replace('"num_classes": 10', '"num_classes": 5')
    elif change == "a fixed batch":
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    elif change == "whole numbers":
        graph.output[0].name = "many"
        graph.node.add(op_type="Cast", input=["logits"], output=["many"], attribute=[onnx.helper.make_attribute("to", onnx.TensorProto.INT64)])
        graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    elif change == "T":
        said["time_steps"].value = "-5"
    elif change == "precision":
        said["precision"].value = "\x1b[2J"
    else:
        said["config"].value = "[" * 100_000
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(ZooError, match=r"strange\.onnx .*eisnn-zoo export") as caught:
        OnnxModel(tmp_path / "strange.onnx")
    assert "\x1b" not in str(caught.value)


def test_answers_that_are_no_numbers_are_not_taken_for_classes(tmp_path, fp32):
    model = onnx.load(fp32)
    model.graph.output[0].name = "none"
    model.graph.node.add(op_type="Log", input=["minus"], output=["none"])
    model.graph.node.insert(len(model.graph.node) - 1, onnx.helper.make_node("Neg", ["positive"], ["minus"]))
    model.graph.node.insert(len(model.graph.node) - 2, onnx.helper.make_node("Exp", ["logits"], ["positive"]))
    onnx.save(model, tmp_path / "none.onnx")
    with pytest.raises(ZooError, match=r"none\.onnx answers with what are no logits"):
        OnnxModel(tmp_path / "none.onnx")(np.zeros((1, 3, 32, 32), np.float32))


def test_other_shapes_are_refused(fp32):
    run = OnnxModel(fp32)
    for shape in ((1, 3, 28, 28), (1, 1, 32, 32), (3, 32, 32), (0, 3, 32, 32)):
        with pytest.raises(ZooError, match=r"takes a batch of \[3, 32, 32\]"):
            run(np.zeros(shape, np.float32))


def test_a_device_that_is_not_there_is_an_error(fp32, monkeypatch):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has CUDA here")
    with pytest.raises(ZooError, match="onnxruntime-gpu"):
        OnnxModel(fp32, "cuda")
    # The library says it has CUDA, and then falls back without a word.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(ZooError, match="onnxruntime-gpu"):
        OnnxModel(fp32, "cuda")
    with pytest.raises(UsageError, match="tpu"):
        OnnxModel(fp32, "tpu")


def test_missing_packages_are_named(vgg8, fp32, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ZooError, match=r"eisnn-zoo\[onnx\]"):
        export(vgg8, tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ZooError, match="pip install onnxruntime"):
        OnnxModel(fp32)


@pytest.mark.parametrize("arguments, word", [
    (("--precision", "int4"), "int4"), (("--opset", "9"), "opset 9"), (("--opset", "99"), "opset 99 is newer"), (("--output", "nowhere/x.onnx"), "nowhere"),
    (("--output", "x"), "ends in .onnx"), (("--output", "."), "folder"), (("--images", "gone"), "no such folder"),
])
def test_export_refuses_nonsense(cli, vgg8, tmp_path, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("export", vgg8.path.parent, *arguments)
    assert code == 2 and out == "" and word in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, precision", [("ei_mlp2_mnist", "int8"), ("ei_mlp2_mnist", "fp16"), ("bn_vgg8_cifar10", "int8")])
def test_other_precisions_are_not_for_mlps_and_baselines(cli, model_folder, tmp_path, name, precision):
    code, out, err = cli("export", model_folder(name), "--precision", precision, "--output", tmp_path / "x.onnx")
    assert code == 2 and out == "" and f"{precision} is for E-I convolutional networks" in err
    assert not (tmp_path / "x.onnx").exists()


def test_8_bit_weights_that_cost_too_much_are_not_written(cli, tmp_path, monkeypatch):
    """What they cost is measured on the data given."""
    labels = locate("ei_vgg8_cifar10").config.label_names
    np.savez(tmp_path / "test.npz", x=np.stack([np.asarray(open_image(f)) for f in FILES]),
             y=[labels.index(f.stem.rpartition("_")[0]) for f in FILES])
    command = "export", "ei_vgg8_cifar10", "--precision", "int8", "--time-steps", 1, "--no-verify", "--output", tmp_path / "x.onnx"
    monkeypatch.setattr("eisnn_zoo.cli.export.ALLOWED_DROP", 100)  # of twenty pictures one answer is 5 points
    code, _, err = cli(*command, "--data", tmp_path)
    assert code == 0 and "torch fp32: top-1" in err and "onnxruntime int8: top-1" in err and "on 20 images" in err, err
    made = (tmp_path / "x.onnx").read_bytes()
    monkeypatch.setattr("eisnn_zoo.inference.export.export", lambda located, path, *_: path.write_bytes(made))
    monkeypatch.setattr("eisnn_zoo.cli.export.ALLOWED_DROP", 0.5)
    for before, after, written in ((90.0, 89.4, False), (89.4, 90.0, True)):
        (tmp_path / "x.onnx").unlink()
        measured = iter([SimpleNamespace(top1=before, seconds=1.0), SimpleNamespace(top1=after, seconds=1.0)])
        monkeypatch.setattr("eisnn_zoo.training.evaluation.evaluate", lambda *_: next(measured))
        code, out, err = cli(*command, "--data", tmp_path)
        assert (tmp_path / "x.onnx").exists() == written == (code == 0) == bool(out)
        assert written or ("costs 0.60 points of accuracy" in err and "export fp32" in err)
        (tmp_path / "x.onnx").touch()
    code, out, err = cli(*command)
    assert code == 0 and "its accuracy was not measured" in err


def test_weights_are_not_overwritten(cli, model_folder):
    weights = model_folder("ei_mlp2_mnist") / "model.safetensors"
    before = weights.read_bytes()
    code, _, err = cli("export", weights, "--no-verify", "--output", weights)
    assert code == 2 and "ends in .onnx" in err and weights.read_bytes() == before


def test_the_pictures_given_are_those_it_is_verified_with(cli, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("eisnn_zoo.inference.export.export", lambda located, path, *_: path.write_bytes(b"made"))
    monkeypatch.setattr("eisnn_zoo.inference.export.verify", lambda path, located, inputs: seen.append(inputs) or "the same")
    (tmp_path / "own").mkdir()
    for i in range(max(BATCHES)):
        Image.new("L", (28, 28), 20 * i).save(tmp_path / "own" / f"{i:02}.png")
    assert cli("export", "ei_mlp2_mnist", "--images", tmp_path / "own", "--output", tmp_path / "x.onnx")[0] == 0
    np.testing.assert_allclose(seen[0][:, 0, 0, 0], [20 * i / 255 for i in range(max(BATCHES))], rtol=1e-5)


@pytest.mark.parametrize("source", [None, "0" * 64])
def test_a_file_that_does_not_say_what_it_was_made_from_is_not_taken_for_the_weights(source, monkeypatch):
    made = SimpleNamespace(metadata={"source_sha256": source} if source else {}, path="model.onnx", time_steps=4)
    monkeypatch.setattr(backends, "OnnxModel", lambda *_: made)
    with pytest.raises(ZooError, match="not made from the weights beside it"):
        backends.onnx_beside(locate("ei_vgg8_cifar10.zoo"))


def test_what_cannot_be_is_said_before_the_export(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("eisnn_zoo.inference.export.trace", lambda *_, **__: pytest.fail("traced"))
    for wrong, said in ((("--data", tmp_path), "holds no CIFAR-10"), (("--opset", 99), "opset 99 is newer than this onnx"),
                        (("--images", tmp_path), "holds no image")):
        code, _, err = cli("export", "ei_vgg8_cifar10", *wrong, "--output", tmp_path / "x.onnx")
        assert code and said in err
    assert not list(tmp_path.iterdir())


def test_a_link_stays_and_leads_to_the_file(cli, model_folder, tmp_path):
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real.onnx")
    assert cli("export", model_folder("ei_mlp2_mnist"), "--output", tmp_path / "link.onnx", "--no-verify")[0] == 0
    assert (tmp_path / "link.onnx").is_symlink() and OnnxModel(tmp_path / "real.onnx").time_steps == 4
    code, _, err = cli("verify", tmp_path / "real.onnx")
    assert code == 2 and "is an ONNX file, which predict, eval and benchmark take" in err


def test_a_file_beside_weights_has_their_time_steps(cli, model_folder):
    folder = model_folder("ei_mlp2_mnist")
    digit = FILES[0].parent.parent / "mnist" / "0_3.png"
    assert cli("export", folder, "--time-steps", 2, "--output", folder / "model.onnx", "--no-verify")[0] == 0
    for command in (("predict", digit, "--model", folder), ("benchmark", folder, "--backend", "onnx", "--rounds", 1, "--batch", 1)):
        code, _, err = cli(*command)
        assert code == 2 and "has 2 time steps inside: export it again with --time-steps 4" in err
    assert cli("verify", folder)[0] == 1
    assert cli("predict", digit, "--model", folder, "--backend", "torch")[0] == 0
    assert cli("predict", digit, "--model", folder, "--backend", "onnx", "--time-steps", 2)[0] == 0


def test_with_another_t_a_file_promises_no_accuracy(cli, model_folder, tmp_path, monkeypatch):
    folder = model_folder("ei_mlp2_mnist")
    config = replace(read_config(folder / "config.json"), facts={"top1": 91.5, "measured_on": "test set", "recipe": "mine"})
    save_network(folder, load_network(locate(str(folder))).state_dict(), config)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "test.npz", x=rng.integers(0, 256, (8, 28, 28, 1), np.uint8), y=rng.integers(0, 10, 8))
    row = Weights(config.model, "zoo", 91.5, "for a test", "Apache-2.0", sha256=sha256(folder / "model.safetensors"))
    for rows in ((), (row,)):  # known by the configuration inside, or by the table of weights too
        monkeypatch.setattr("eisnn_zoo.inference.backends.list_weights", lambda rows=rows: rows)
        for steps, expected in ((4, 91.5), (2, None)):
            file = tmp_path / f"{steps}.onnx"
            assert cli("export", folder, "--time-steps", steps, "--output", file, "--no-verify")[0] == 0
            found = json.loads(cli("eval", file, "--data", tmp_path, "--format", "json")[1])
            assert (found["time_steps"], found["expected_top1"]) == (steps, expected)
    assert OnnxModel(tmp_path / "2.onnx").config["eisnn_zoo"] == {"recipe": "mine"}


def test_into_a_pipe_nothing_but_the_file(model_folder, tmp_path):
    command = [sys.executable, "-m", "eisnn_zoo", "export", model_folder("ei_mlp2_mnist"), "--no-verify", "--output", "/dev/stdout"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    (tmp_path / "x.onnx").write_bytes(done.stdout)
    assert OnnxModel(tmp_path / "x.onnx").time_steps == 4


def test_export_command(cli, model_folder, tmp_path):
    path = tmp_path / "out" / "mlp.onnx"
    path.parent.mkdir()
    code, out, err = cli("export", model_folder("ei_mlp2_mnist"), "--output", path)
    assert code == 0 and out == f"{path}\n", err
    assert "verified" in err and "batch 1, 2, 7" in err
    assert [p.name for p in path.parent.iterdir()] == ["mlp.onnx"]
