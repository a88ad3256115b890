import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import released
from safetensors.torch import load_file, save_file

import eisnn_zoo
from eisnn_zoo import hub_client, table
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.config import read_config
from eisnn_zoo.errors import UsageError, ZooError
from eisnn_zoo.files import sha256
from eisnn_zoo.locating import locate
from eisnn_zoo.networks import build
from eisnn_zoo.release import from_release, load_release_state, release_names, to_release
from eisnn_zoo.table import default_weights, list_weights
from eisnn_zoo.weights import load_network


@pytest.fixture
def release_on_the_hub(tmp_path, monkeypatch):
    """The release's layout, as if it lay in the local cache."""

    def put(name: str, **changed) -> Path:
        model = MODELS[name]
        folder = tmp_path / model.release_folder
        folder.mkdir(exist_ok=True)
        save_file(released(name), folder / "model.safetensors")
        config = {"type": "EI-SNN", "arch": {"vgg": "VGG", "resnet": "ResNet"}[model.family], "num_layers": model.depth,
                  "dataset": model.dataset.release, "T": 4, "ei_ratio": 4, "neuron": {"tau": 2.0}, **changed}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    monkeypatch.setattr(hub_client, "cached", lambda repo, file, *_: p if (p := tmp_path / file).exists() else None)
    monkeypatch.setattr(hub_client, "fetch", lambda repo, file, *_: tmp_path / file)
    return put


@pytest.mark.parametrize("name", ["ei_vgg8_cifar10", "ei_resnet18_cifar10"])
def test_released_checkpoint_by_its_tag(name, release_on_the_hub):
    import timm

    folder = release_on_the_hub(name)
    ours = eisnn_zoo.create_model(f"{name}.paper")
    through_timm = timm.create_model(f"{name}.paper", pretrained=True)
    other_head = timm.create_model(f"{name}.paper", pretrained=True, num_classes=3, in_chans=1)
    direct = build(name)
    load_release_state(direct, released(name))
    for key, value in direct.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value) and torch.equal(through_timm.state_dict()[key], value), key
    assert other_head.num_classes == 3 and bool(ours.initialised)
    assert folder.exists()


@pytest.mark.parametrize("changed, word", [({"num_layers": 11}, "num_layers"), ({"dataset": "CIFAR100"}, "CIFAR100"), ({"type": "BN-SNN"}, "type"),
                                           ({"T": 4.0}, "T 4.0 is no number of time steps")])
def test_released_config_that_contradicts_the_name(changed, word, release_on_the_hub):
    release_on_the_hub("ei_vgg8_cifar10", **changed)
    with pytest.raises(ZooError, match=word):
        eisnn_zoo.create_model("ei_vgg8_cifar10.paper")


def test_a_folder_of_the_release_is_read_as_it_is(tmp_path, release_on_the_hub):
    """As `hf download` leaves it, whatever it is called."""
    folder = release_on_the_hub("ei_vgg8_cifar10").rename(tmp_path / "theirs")
    for spec in (folder, folder / "model.safetensors"):
        located = locate(str(spec))
        assert located.config.name == "ei_vgg8_cifar10.paper" and load_network(located).initialised


def test_release_time_steps_travel(release_on_the_hub):
    release_on_the_hub("ei_vgg8_cifar10", T=6, neuron={"tau": 3.0})
    model = eisnn_zoo.create_model("ei_vgg8_cifar10.paper")
    assert model.time_steps == 6 and model.stages[0].layers[0].lif.tau == 3.0


def test_release_with_other_numbers_of_inhibitory_cells(release_on_the_hub, cli, tmp_path):
    folder = release_on_the_hub("ei_resnet18_cifar10", ei_ratio=8)
    network = build("ei_resnet18_cifar10", ei_ratio=8)
    eisnn_zoo.initialize(network, torch.rand(8, 3, 32, 32), seed=1)
    names, unused = release_names(network)
    own = network.state_dict()
    theirs = {name: own[ours] for ours, name in names.items()} | {name: torch.ones(1) for name in unused}
    save_file(theirs, folder / "model.safetensors")
    loaded = load_network(locate(str(folder)))
    assert loaded.head.n_i == 1 and all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items())
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    assert cli("convert", folder / "model.safetensors", ours)[0] == 0 and cli("convert", ours, back)[0] == 0
    assert all(torch.equal(value, theirs[key]) for key, value in load_file(back).items() if key not in unused)


def test_release_loading_accounts_for_every_name():
    state = released("ei_vgg8_cifar10")
    model = build("ei_vgg8_cifar10")
    for broken, word in (
        ({k: v for k, v in state.items() if k != "layers.10.gain_e"}, "missing layers.10.gain_e"),
        ({**state, "layers.99.extra": torch.zeros(1)}, "unexpected layers.99.extra"),
        ({**state, "layers.10.gain_e": torch.zeros(7, 1, 1)}, "layers.10.gain_e"),
        ({k: v for k, v in state.items() if not k.startswith("layers.30")}, "5 layers"),
    ):
        with pytest.raises(ValueError, match=word):
            load_release_state(model, broken)


@pytest.mark.parametrize("name", ["ei_vgg8_cifar10", "ei_resnet18_cifar10", "ei_mlp4_mnist", "bn_resnet18_cifar10", "bn_vgg16_cifar10"])
def test_release_layout_and_back_is_bit_exact(name):
    state = released(name)
    model = build(name)
    load_release_state(model, state)
    back = to_release(model, state)
    assert back.keys() == state.keys()
    for key in state:
        assert torch.equal(back[key].float(), state[key]), key


def test_release_state_in_float64():
    state = {k: v.double() + 1e-12 for k, v in released("ei_vgg8_cifar10").items()}
    model = build("ei_vgg8_cifar10", dtype=torch.float64)
    assert from_release(model, state)["head.ee.weight"].dtype == torch.float64
    load_release_state(model, state)
    assert torch.equal(model.head.ee.weight, state["layers.38.weight_ee"])


def test_every_row_of_the_table_is_true():
    names = [w.name for w in list_weights()]
    assert len(names) == len(set(names)) and len([n for n in names if n.endswith(".paper")]) == 11
    for w in list_weights():
        assert 0 < w.top1 <= 100 and w.license and w.obtained
        if w.folder:
            assert w.local, f"{w.name} is in the table and not in hub/"
            assert sha256(w.local) == w.sha256 and w.local.stat().st_size == w.size
            network = load_network(locate(w.name))
            assert network.initialised or network.kind != "ei"  # E-I Init draws nothing in a baseline


def test_weights_that_are_not_those_of_the_table_are_refused(tmp_path, monkeypatch):
    (tmp_path / "ei_mlp4_mnist.zoo").mkdir()
    (tmp_path / "ei_mlp4_mnist.zoo" / "model.safetensors").write_bytes(b"others")
    monkeypatch.setattr("eisnn_zoo.table.hub_folder", lambda: tmp_path)
    with pytest.raises(ZooError, match=r"model\.safetensors is damaged: its sha256 is not that of ei_mlp4_mnist\.zoo; install again"):
        locate("ei_mlp4_mnist.zoo")


def test_a_name_takes_the_most_accurate_of_its_weights_that_are_here(tmp_path, monkeypatch):
    name = "ei_resnet18_cifar10"
    here = {w.tag: w.local for w in table.weights_of(name)}
    ours = table.taken(table.weights_of(name))
    if here["paper"] is None:
        assert ours.folder and ours.top1 == max(w.top1 for w in table.weights_of(name) if w.folder)
    monkeypatch.setattr(table.hub_client, "cached", lambda repo, file: tmp_path / "model.safetensors")  # all of the authors' were fetched
    both = table.weights_of(name)
    assert table.taken(both).top1 == max(w.top1 for w in both) and default_weights().top1 >= table.taken(both).top1


def test_default_is_the_most_accurate_of_e_i_networks_that_is_here(monkeypatch):
    best, all_of_them = default_weights(), list_weights()
    assert best.local and best.top1 == max(w.top1 for w in all_of_them if w.local and w.model.kind == "ei" and w.model.input_size[0] == 3)
    better = [replace(w, top1=99.0) if w.local and w.model.kind != "ei" else w for w in all_of_them]
    assert len({w.model.kind for w in better if w.top1 == 99.0}) == 2
    monkeypatch.setattr(table, "list_weights", lambda: better)
    assert default_weights() == best, "not what E-I networks are compared with"


@pytest.mark.parametrize("spec, word", [
    ("ei_vgg9_cifar10", "did you mean .*ei_vgg8_cifar10"), ("ei_vgg8_cifar10.nonsense", "its tags"), ("ei_resnet34", "no trained weights"),
    ("nobody/here", "hf-hub:nobody/here"), ("local-dir:/no/such", "no folder"), ("missing.safetensors", "no file"),
    ("x" * 300 + ".safetensors", "there is no file x"), ("x" * 5000, "there is no model 'x"), ("x/" * 3000, "no folder or file x/"),
])
def test_what_cannot_be_meant(spec, word):
    with pytest.raises(ZooError, match=word):
        locate(spec)


def test_options_that_the_weights_do_not_fit_are_not_the_files_fault():
    for options, words in (({"num_classes": 5}, "do not fit a network with num_classes = 5; for other classes"), ({"timesteps": 1}, "timesteps = 1")):
        with pytest.raises(ZooError, match=words):
            eisnn_zoo.create_model("ei_mlp4_mnist", pretrained=True, **options)


def test_a_file_of_other_weights_is_not_the_options_fault(model_folder):
    path = model_folder("ei_mlp2_mnist") / "model.safetensors"
    save_file({"nonsense": torch.zeros(1)}, path)
    with pytest.raises(ZooError, match=r"model\.safetensors does not hold the weights of ei_mlp2_mnist"):
        load_network(locate(str(path.parent)), time_steps=2, stabilisation="adaptive")


def test_a_folder_with_an_onnx_file_alone_names_it(tmp_path):
    (tmp_path / "small.onnx").touch()
    with pytest.raises(UsageError, match=rf"but an ONNX file: give {tmp_path / 'small.onnx'} itself"):
        locate(str(tmp_path))


def test_the_hub_out_of_reach_is_one_sentence():
    with pytest.raises(ZooError, match="HF_HUB_OFFLINE"):
        locate("hf-hub:nobody/nothing")
    with pytest.raises(UsageError, match="organisation/name"):
        hub_client.fetch("a/b/c", "x")


def test_a_run_is_its_best_weights(model_folder, tmp_path):
    for part in ("last", "best"):
        model_folder("ei_mlp2_mnist", folder=tmp_path / part)
    assert locate(str(tmp_path)).path.parent.name == "best"


def test_a_lone_file_carries_its_configuration(model_folder, tmp_path):
    folder = model_folder("ei_mlp2_mnist", time_steps=3)
    lone = tmp_path / "elsewhere.safetensors"
    lone.write_bytes((folder / "model.safetensors").read_bytes())
    assert load_network(locate(str(lone))).time_steps == 3
    bare = tmp_path / "bare" / "model.safetensors"
    bare.parent.mkdir()
    save_file(build("ei_mlp2_mnist").state_dict(), bare)
    with pytest.raises(ZooError, match="carries no configuration"):
        locate(str(bare))


def test_pickles_are_never_read(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="never read"):
        locate(str(path))


@pytest.mark.parametrize("change, word", [
    (lambda c: c.update(num_classes=7), "do not agree"), (lambda c: c.update(label_names=["a"]), "do not agree"),
    (lambda c: c.update(architecture="resnet50"), "no model"), (lambda c: c.pop("architecture"), "no architecture"),
    (lambda c: c["model_args"].update(nonsense=1), "nonsense"), (lambda c: c["model_args"].update(tau=0), "tau"),
    (lambda c: c["pretrained_cfg"].update(input_size=[3, 10**9, 1]), "input_size"), (lambda c: c.update(model_args=[1]), "objects"),
    (lambda c: c["model_args"].update(ei_ratio=2), "does not hold the weights"),
    (lambda c: c["model_args"].update(time_steps=2.5), r"config\.json: time_steps 2\.5 is no number"),
    (lambda c: c["pretrained_cfg"].update(tag="../out"), r"config\.json: tag '\.\./out' is none"),
    (lambda c: c["pretrained_cfg"].update(mean=[0.5], std=[0.2]), r"config\.json: mean \[0\.5\] is not how images reach"),
    (lambda c: c["pretrained_cfg"].update(input_size=[1, 28, 56]), r"input_size \[1, 28, 56\] is not \(1, side, side\)"),
    (lambda c: c["pretrained_cfg"].update(input_size=[3, 28, 28]), "is not \\(1, side, side\\)"),
    (lambda c: c.update(architecture="ei_mlp3_mnist"), r"config\.json: there is no model 'ei_mlp3_mnist'; did you mean"),
])
def test_a_configuration_that_lies(change, word, model_folder):
    folder = model_folder("ei_mlp2_mnist")
    raw = json.loads((folder / "config.json").read_text())
    change(raw)
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ZooError, match=word):
        load_network(locate(str(folder)))


def test_a_configuration_with_another_size_of_images(model_folder):
    """The weights of a convolution would fit any."""
    folder = model_folder("ei_vgg8_cifar10")
    raw = json.loads((folder / "config.json").read_text())
    raw["pretrained_cfg"]["input_size"] = [3, 48, 48]
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ZooError, match="its own header disagrees on input_size;"):
        load_network(locate(str(folder)))


@pytest.mark.parametrize("damage", [lambda b: b[:1000], lambda b: b"", lambda b: b"\xff" * 8 + b[8:], lambda b: b[:8] + b"{" + b[9:-1],
                                    lambda b: b[:-100], lambda b: b + b"\0" * 100])
def test_a_damaged_weight_file(damage, model_folder):
    folder = model_folder("ei_mlp2_mnist")
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ZooError, match="safetensors"):
        load_network(locate(str(folder)))


@pytest.mark.parametrize("text, word", [("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "no architecture"), ("x" * 2**21, "bytes")])
def test_a_damaged_configuration(text, word, model_folder):
    folder = model_folder("ei_mlp2_mnist")
    (folder / "config.json").write_text(text)
    with pytest.raises(ZooError, match=word):
        locate(str(folder))


@pytest.mark.parametrize("key, value, word", [
    ("current.b_e", float("nan"), "not finite"),
    *((f"current.{name}", -1.0, "Dale's law forbids") for name in ("ee.weight", "ie.weight", "ei.weight", "g_i", "g_e"))])
def test_values_that_no_network_has(key, value, word, model_folder):
    folder = model_folder("ei_mlp2_mnist")
    state = load_network(locate(str(folder))).state_dict()
    state[f"stages.0.layers.0.{key}"].flatten()[3] = value
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ZooError, match=word):
        load_network(locate(str(folder)))


@pytest.mark.parametrize("name", ["ei_mlp2_mnist", "bn_mlp2_mnist"])
@pytest.mark.parametrize("change", [lambda v: v.half(), lambda v: 0.5 * v + 0.5 * v])
def test_a_state_halved_or_averaged_as_a_whole_is_one(change, name, model_folder):
    folder = model_folder(name)
    state = load_network(locate(folder)).state_dict()
    save_file({key: change(value).contiguous() for key, value in state.items()}, folder / "model.safetensors")
    for key, value in eisnn_zoo.create_model(folder).state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=1e-3, atol=1e-3)
    save_file({key: value + 0.5 if key.endswith(("initialised", "tracked")) else value for key, value in state.items()},
              folder / "model.safetensors")
    with pytest.raises(ZooError, match="no type for it"):
        eisnn_zoo.create_model(folder)


def test_bounds_of_a_configuration(model_folder):
    path = model_folder("ei_mlp2_mnist") / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "label_names": ["\x9b2J", *map(str, range(9))]}))
    assert read_config(path).label_names[0] == "\ufffd2J"
    for key, value, word in (("dtype", "float16", "model_args names a dtype"), ("time_steps", 10_001, "time_steps 10001 is no number")):
        path.write_text(json.dumps({**raw, "model_args": {**raw["model_args"], key: value}}))
        with pytest.raises(ZooError, match=word):
            read_config(path)


def test_networks_for_pictures_those_of_colour_first(monkeypatch):
    found = table.picture_classifiers()
    channels = [w.model.input_size[0] for w in found]
    assert channels == sorted(channels, reverse=True) and set(channels) == {1, 3}
    assert all(w.model.kind == "ei" and not w.model.dataset.event for w in found)
    monkeypatch.setattr(table, "list_weights", lambda: [w for w in found if w.model.input_size[0] != 3])
    assert default_weights().model.input_size[0] == 1
    monkeypatch.setattr(table, "list_weights", list)
    with pytest.raises(ZooError, match="no weights are here"):
        default_weights()
