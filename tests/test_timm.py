"""timm's contract, as its users meet it. timm's own test file runs beside these (see .ci/run)."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import eisnn_zoo  # before timm on purpose: either order registers the models
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.config import base_config, find_model
from eisnn_zoo.locating import Located, locate
from eisnn_zoo.weights import load_network, save_network


def test_every_model_is_registered_once():
    assert set(timm.list_models(module="eisnn")) == set(MODELS)
    assert {m for m in timm.list_models("ei_*")} == {m for m in MODELS if m.startswith("ei_")}
    assert timm.is_model("bn_resnet18_cifar10")


@pytest.mark.parametrize("order", ["import eisnn_zoo, timm", "import timm, eisnn_zoo", "import timm.data, eisnn_zoo, timm.models"])
def test_either_import_order(order):
    code = f"{order}; print(type(timm.create_model('ei_mlp2_mnist')).__name__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "SpikingMLP"


def test_importing_the_package_imports_neither_torch_nor_timm():
    code = "import eisnn_zoo, sys; print(sorted({'torch', 'timm', 'torchvision', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_configuration_is_ours_and_not_imagenets():
    cfg = timm.create_model("ei_vgg8_cifar10").pretrained_cfg
    assert cfg["mean"] == (0, 0, 0) and cfg["std"] == (1, 1, 1) and cfg["crop_pct"] == 1.0
    assert cfg["input_size"] == (3, 32, 32) and cfg["label_names"][3] == "cat" and cfg["num_classes"] == 10
    data = timm.data.resolve_model_data_config(timm.create_model("ei_vgg8_cifar10"))
    assert data["mean"] == (0, 0, 0) and data["crop_pct"] == 1.0


@pytest.mark.parametrize("name", [m for m, model in MODELS.items() if model.released_top1])
def test_the_released_checkpoints_are_tags(name):
    cfg = timm.get_pretrained_cfg(f"{name}.paper")
    assert cfg.hf_hub_id == "vwOvOwv/DeepEISNN" and cfg.hf_hub_filename.endswith("/model.safetensors")
    assert f"{name}.paper" in timm.list_models("ei_*", pretrained=True)


def test_unknown_tag_and_missing_weights():
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        timm.create_model("ei_vgg8_cifar10.nonsense")
    with pytest.raises(Exception, match="no trained weights"):
        timm.create_model("ei_resnet34", pretrained=True)


@pytest.mark.parametrize("name", ["ei_vgg8_cifar10", "bn_vgg8_cifar10", "ei_mlp2_mnist"])
def test_local_dir(name, model_folder):
    folder = model_folder(name, time_steps=2)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model.time_steps == 2
    for key, value in load_file(folder / "model.safetensors").items():
        assert torch.equal(model.state_dict()[key], value), key
    assert timm.create_model(f"local-dir:{folder}", pretrained=True, time_steps=5).time_steps == 5


@pytest.mark.parametrize("name", ["ei_vgg8_cifar10", "bn_vgg8_cifar10", "ei_mlp2_mnist"])
def test_other_channels_and_classes_from_trained_weights(name, model_folder):
    folder = model_folder(name)
    trained = load_file(folder / "model.safetensors")
    chans = 1 if name != "ei_mlp2_mnist" else 3
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=chans, num_classes=5).eval()
    x = torch.rand(2, chans, *MODELS[name].input_size[1:])
    assert model(x).shape == (2, 5)
    key = next(k for k in trained if "stages.0" in k and k.endswith("weight") and "bn" not in k)
    if name == "ei_vgg8_cifar10":  # a grey image gives what its three equal planes gave
        torch.testing.assert_close(model.state_dict()[key], trained[key].sum(1, keepdim=True))
    if name == "ei_mlp2_mnist":
        full = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        grey = torch.rand(2, 1, 28, 28)
        torch.testing.assert_close(model.forward_features(grey.expand(-1, 3, -1, -1)), full.forward_features(grey))
    body = [k for k in trained if not k.startswith(("head", "stages.0"))]
    assert all(torch.equal(model.state_dict()[k], trained[k]) for k in body)
    features = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    assert features(torch.rand(2, *MODELS[name].input_size)).shape == (2, features.num_features)


@pytest.mark.parametrize("name, chans", [("ei_vgg8_cifar10", 1), ("ei_vgg8_cifar10", 4), ("ei_mlp2_mnist", 3)])
def test_published_half_precision_is_not_rounded_again_for_other_channels(name, chans):
    old = timm.create_model(name, pretrained=True).state_dict()
    new = timm.create_model(name, pretrained=True, in_chans=chans).state_dict()
    key = next(k for k in old if k.startswith("stages.0") and k.endswith("ee.weight"))
    if name.startswith("ei_mlp"):
        torch.testing.assert_close(new[key][:, :784].double(), old[key].double() / 3, rtol=1e-6, atol=0)
    elif chans == 1:
        torch.testing.assert_close(new[key].double(), old[key].double().sum(1, keepdim=True), rtol=1e-6, atol=0)
    else:  # timm repeats the planes, so that together they drive as much
        torch.testing.assert_close(new[key].double(), old[key].double()[:, [0, 1, 2, 0]] * 3 / 4, rtol=1e-6, atol=0)


def test_a_plain_network_tells_timm_how_it_is_fed_and_is_saved_by_it(tmp_path):
    plain, through_timm = eisnn_zoo.create_model("ei_mlp2_mnist", pretrained=True), timm.create_model("ei_mlp2_mnist", pretrained=True)
    assert timm.data.resolve_model_data_config(plain) == timm.data.resolve_model_data_config(through_timm)
    assert timm.data.resolve_model_data_config(eisnn_zoo.create_model("ei_vgg8_cifar10"))["input_size"] == (3, 32, 32)
    timm.models.save_for_hf(plain, tmp_path / "saved", model_args=plain.config, safe_serialization=True)
    x = torch.rand(4, 1, 28, 28)
    assert torch.equal(eisnn_zoo.create_model(f"local-dir:{tmp_path / 'saved'}")(x), plain(x))


def test_batch_normalisation_folds_by_torch_s_own_helper():
    model = eisnn_zoo.create_model("bn_vgg8_cifar10", pretrained=True).eval()
    x = torch.rand(2, 3, 32, 32)
    before = model(x)
    assert torch.equal(torch.jit.script(model)(x), before)
    for current in (layer.current for stage in model.stages for layer in stage.layers):
        current.conv, current.bn = torch.nn.utils.fusion.fuse_conv_bn_eval(current.conv, current.bn), torch.nn.Identity()
    assert (model(x) - before).abs().mean() < 0.05, "single spikes may flip"
    assert torch.equal(torch.jit.script(model)(x), model(x))


def test_weights_of_a_colour_image_drive_as_much_where_the_stem_does_not_divide(model_folder):
    """The planes of a grey digit, seen in three colours, share what one had."""
    folder = model_folder("bn_mlp2_mnist")
    one, three = (timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=n).eval() for n in (1, 3))
    grey = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(three.forward_features(grey.expand(-1, 3, -1, -1)), one.forward_features(grey))
    key = "stages.0.layers.0.current.linear.weight"
    torch.testing.assert_close(three.state_dict()[key].unflatten(1, (3, -1)).sum(1), one.state_dict()[key])


def test_half_precision_files_load_into_float32(model_folder):
    folder = model_folder("ei_mlp2_mnist")
    path = folder / "model.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in load_file(path).items()}, path)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model.head.ee.weight.dtype == torch.float32


def test_negative_weights_are_refused(model_folder):
    folder = model_folder("ei_mlp2_mnist")
    path = folder / "model.safetensors"
    state = load_file(path)
    state["head.ee.weight"][0, 0] = -1.0
    save_file(state, path)
    with pytest.raises(Exception, match="Dale"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)


def test_an_overlay_names_other_weights(model_folder, tmp_path):
    """They are taken, with the time steps that their file says; ours are not, whatever else cannot be had."""
    path = model_folder("ei_mlp4_mnist", time_steps=3) / "model.safetensors"
    model = timm.create_model("ei_mlp4_mnist", pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    assert model.time_steps == 3 and torch.equal(model.head.ee.weight, load_file(path)["head.ee.weight"])
    timm.models.save_for_hf(model, path.parent, model_args=model.config, safe_serialization=True)  # whose file does not say it: config.json does
    assert timm.create_model("ei_mlp4_mnist", pretrained=True, pretrained_cfg_overlay={"file": str(path)}).time_steps == 3
    tuned = eisnn_zoo.create_model("ei_mlp4_mnist", num_classes=3, in_chans=3)
    save_network(tmp_path, tuned.state_dict(), replace(base_config(find_model("ei_mlp4_mnist")), options=tuned.config, label_names=("a", "b", "c")))
    path = tmp_path / "model.safetensors"
    for options, classes, channels in ({}, 3, 3), ({"num_classes": 3}, 3, 3), ({"num_classes": 5, "in_chans": 1}, 5, 1):
        model = timm.create_model("ei_mlp4_mnist", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options)
        assert (model.num_classes, model.in_chans) == (classes, channels)
        assert torch.equal(model.stages[1].layers[0].current.ee.weight, load_file(path)["stages.1.layers.0.current.ee.weight"])
        assert classes == 5 or torch.equal(model.head.ee.weight, load_file(path)["head.ee.weight"])
    with pytest.raises(Exception, match=r"(?i)offline|cannot|could not|failed"):
        timm.create_model("ei_mlp4_mnist", pretrained=True, pretrained_cfg_overlay={"hf_hub_id": "nobody/nothing"})


def test_our_entry_as_timms_scripts_pass_it_on_stands_for_our_weights(model_folder, tmp_path, monkeypatch):
    """Their T and the checks of the table go with them, and a folder in the working directory that bears the name is none of them."""
    cfg = timm.models.get_pretrained_cfg("ei_mlp4_mnist.zoo").to_dict()
    assert timm.create_model("ei_mlp4_mnist", pretrained=True, pretrained_cfg=cfg).time_steps == 4
    path = model_folder("ei_mlp4_mnist", time_steps=3) / "model.safetensors"
    config = replace(locate("ei_mlp4_mnist.zoo").config, options=locate(str(path)).config.options)
    caches = []
    monkeypatch.setattr("eisnn_zoo.eisnn.locate_name", lambda name, cache_dir=None: caches.append(cache_dir) or Located(path, config))
    for given in (cfg, timm.models.PretrainedCfg(**cfg), "zoo", None):
        assert timm.create_model("ei_mlp4_mnist", pretrained=True, pretrained_cfg=given).time_steps == 3
    timm.create_model("ei_mlp4_mnist", pretrained=True, cache_dir=tmp_path)
    assert set(caches[:-1]) == {None} and caches[-1] == tmp_path
    other = {**cfg, "file": str(model_folder("ei_mlp4_mnist", folder=tmp_path / "other") / "model.safetensors")}
    model = timm.create_model("ei_mlp4_mnist", pretrained=True, pretrained_cfg=other)
    assert torch.equal(model.head.ee.weight, load_file(other["file"])["head.ee.weight"])


def test_a_name_is_a_name_wherever_it_is_said(model_folder, tmp_path, monkeypatch):
    model_folder("ei_mlp4_mnist", time_steps=3, folder=tmp_path / "ei_mlp4_mnist")
    monkeypatch.chdir(tmp_path)
    ours = load_file(locate("ei_mlp4_mnist.zoo").path)["head.ee.weight"].float()
    for model in (timm.create_model("ei_mlp4_mnist", pretrained=True), load_network(locate("ei_mlp4_mnist"))):
        assert torch.equal(model.head.ee.weight, ours)
    assert load_network(locate("./ei_mlp4_mnist")).time_steps == 3


def test_a_fine_tuned_model_in_timms_format(tmp_path):
    """save_for_hf with our options as they are, those included that changed after the network was made; timm keeps no class names."""
    model = timm.create_model("ei_mlp4_mnist", pretrained=True, num_classes=3, tau=3.0).eval()
    model.time_steps = 2
    timm.models.save_for_hf(model, tmp_path / "forgotten", safe_serialization=True)
    assert (again := load_network(locate(str(tmp_path / "forgotten")))).time_steps == 2 and again.config == model.config
    timm.models.save_for_hf(model, tmp_path, model_args=model.config, safe_serialization=True)
    assert locate(str(tmp_path)).config.name == "ei_mlp4_mnist", "not the weights that it came from"
    again, x = load_network(locate(str(tmp_path))), torch.rand(2, 1, 28, 28)
    assert again.time_steps == 2 and torch.equal(again(x), model(x))
    assert torch.equal(timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()(x), model(x))


def test_features_come_by_the_getter_alone():
    with pytest.raises(ValueError, match="feature_cls"):
        timm.create_model("ei_resnet18", features_only=True, feature_cls="fx")


@pytest.mark.parametrize("name", ["ei_mlp2_mnist", "ei_mlp16_mnist", "bn_vgg19", "ei_resnet50"])
def test_all_levels_where_none_are_chosen(name):
    every = timm.create_model(name).feature_info
    assert timm.create_model(name, features_only=True).feature_info.channels() == [level["num_chs"] for level in every]


def test_feature_extraction():
    x = torch.rand(2, 3, 32, 32)
    model = timm.create_model("ei_resnet18", features_only=True, out_indices=(1, 3, 4)).eval()
    assert [tuple(f.shape) for f in model(x)] == [(2, 64, 32, 32), (2, 256, 8, 8), (2, 512, 4, 4)]
    assert model.feature_info.channels() == [64, 256, 512] and model.feature_info.reduction() == [1, 4, 8]
    full = timm.create_model("ei_vgg8").eval()
    last, levels = full.forward_intermediates(x)
    torch.testing.assert_close(last, full.forward_features(x))
    assert len(levels) == 5
    torch.testing.assert_close(full.forward_head(last), full(x))


@pytest.mark.parametrize("index", range(5))
def test_pruning_keeps_the_levels(index):
    """timm prunes for features_only: the level stays, what follows it goes, and nothing unused is left to train."""
    model = timm.create_model("ei_vgg8").eval()
    model._unsure = False
    x = torch.rand(2, 3, 32, 32)
    level = model.forward_intermediates(x, indices=[index], stop_early=True, intermediates_only=True)[0].detach()
    taken = model.prune_intermediate_layers([index])
    again = model.train().forward_intermediates(x, indices=taken, intermediates_only=True)
    torch.testing.assert_close(again[0], level)
    torch.testing.assert_close(model.forward_intermediates(x, intermediates_only=True)[-1], level)
    again[0].sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]
    assert model.num_features == level.shape[1]


def test_train_py_options_are_accepted():
    assert timm.create_model("ei_vgg8", drop_rate=0.2).drop_rate == 0.2
    with pytest.raises(TypeError):
        timm.create_model("ei_vgg8", not_an_option=1)


def test_config_json_is_timms(model_folder):
    raw = json.loads((model_folder("ei_vgg8_cifar10") / "config.json").read_text())
    assert raw["architecture"] == "ei_vgg8_cifar10" and raw["pretrained_cfg"]["label_names"][0] == "airplane"
    from timm.models import generate_default_cfgs

    assert generate_default_cfgs({"x": raw["pretrained_cfg"]})
    larger = replace(base_config(find_model("ei_resnet18_cifar10")), size=64)
    assert larger.to_json()["pretrained_cfg"]["pool_size"] == [8, 8]  # of the last map at that size


def test_timms_scripts_run_with_our_models(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import sys, timm, torch
model = timm.create_model(sys.argv[1]).train()
print(type(model).__name__)
optimizer = torch.optim.SGD(model.parameters(), 1.0)
model(torch.rand(4, 1, 28, 28)).square().sum().backward()
optimizer.step()
print({n for n, p in model.named_parameters() if p.min() < 0})
""")
    command = [sys.executable, "-m", "eisnn_zoo.timm_run"]
    done = subprocess.run([*command, str(script), "ei_mlp2_mnist"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["SpikingMLP", "{'stages.0.layers.0.current.b_e'}"], "Dale's law binds all but the bias"
    assert "there is no file gone.py" in subprocess.run([*command, "gone.py"], capture_output=True, text=True).stderr
