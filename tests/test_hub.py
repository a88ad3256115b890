"""Publishing, downloading, verifying and converting, with the real client and a Hub on this machine."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import released
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

import eisnn_zoo
from eisnn_zoo import hub_client
from eisnn_zoo.catalog import MODELS, RELEASE_REPO
from eisnn_zoo.config import read_config
from eisnn_zoo.files import sha256
from eisnn_zoo.locating import locate
from eisnn_zoo.networks import build
from eisnn_zoo.release import release_names
from eisnn_zoo.sharing import card
from eisnn_zoo.sharing.verifying import _accuracy
from eisnn_zoo.table import Weights, hub_folder, put_row, read_table

pytest_plugins = ("fake_hub",)
NAME, REPO = "ei_mlp2_mnist", "me/net"
pytestmark = pytest.mark.filterwarnings("ignore")


def release_configuration(name: str) -> bytes:
    model = MODELS[name]
    config = {"type": "EI-SNN", "arch": "VGG", "num_layers": model.depth, "dataset": model.dataset.release, "T": 4, "ei_ratio": 4,
              "neuron": {"tau": 2.0}}
    return json.dumps(config).encode()


def release_files(name: str) -> dict[str, bytes]:
    folder = MODELS[name].release_folder
    return {f"{folder}/model.safetensors": save(released(name)), f"{folder}/config.json": release_configuration(name)}


@pytest.fixture
def packed(tmp_path, model_folder):
    """A packed model in a hub folder of its own, with its table."""
    folder = model_folder(NAME, "zoo", folder=tmp_path / "hub" / f"{NAME}.zoo")
    config = replace(read_config(folder / "config.json"), facts={"top1": 91.5, "recipe": "zoo_mlp4_mnist", "test_images": 10_000})
    text = json.dumps(config.to_json())
    (folder / "config.json").write_text(text)
    state = {k: v.half() if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", {"format": "pt", "config": text})
    (folder / "metrics.csv").write_text("epoch\n1\n")
    row = Weights(MODELS[NAME], "zoo", 91.5, "for a test", "Apache-2.0", folder=folder.name, sha256=sha256(folder / "model.safetensors"),
                  size=(folder / "model.safetensors").stat().st_size)
    put_row(row, folder.parent / "weights.toml")
    card.write(folder, config, row)
    return folder


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")


# ---- publish ---------------------------------------------------------------------------------------------------------


def test_round_trip(hub, packed, token, cli, tmp_path):
    code, out, err = cli("publish", packed, "--repo-id", REPO)
    assert code == 0 and "/me/net/commit/" in out, err
    repo = hub.repos[REPO]
    assert len(repo.messages) == 1 and hub.count("POST .*/commit/") == 1
    _, tree = repo.at("main")
    assert tree["model.safetensors"] == (packed / "model.safetensors").read_bytes()
    assert set(tree) == {p.relative_to(packed).as_posix() for p in packed.rglob("*") if p.is_file()}
    assert f'create_model("hf-hub:{REPO}"'.encode() in tree["README.md"]

    model = eisnn_zoo.create_model(f"hf-hub:{REPO}")
    assert locate(f"hf_hub:{REPO}").path == locate(f"hf-hub:{REPO}").path  # timm's older way to write it
    own = eisnn_zoo.create_model(str(packed))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), own.state_dict().values(), strict=True))
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(model(x), own(x))
    picture = Path(__file__).parent / "data" / "cifar10" / "cat_0.png"
    results = [cli("predict", picture, "--model", spec, "--format", "json")[1] for spec in (f"hf-hub:{REPO}", packed)]
    assert results[0] == results[1] != ""
    code, out, _ = cli("download", f"hf-hub:{REPO}", "--to", tmp_path / "there")
    assert code == 0 and cli("verify", out.strip())[0] == 0 and out.strip().endswith("there/me--net")
    # Publishing again changes nothing that is there, and a branch or pull request leaves the main branch alone.
    assert cli("publish", packed, "--repo-id", REPO, "--revision", "v2")[0] == 0 and "v2" in repo.branches
    code, out, _ = cli("publish", packed, "--repo-id", REPO, "--create-pr")
    assert code == 0 and "discussions/1" in out and len(repo.messages) == 3


def test_weights_that_the_new_ones_replace_leave_with_them(hub, packed, token, cli):
    hub.put(REPO, {"config.json": (packed / "config.json").read_bytes(), "model.onnx": b"of earlier weights", "notes.txt": b"mine"})
    assert cli("publish", packed, "--repo-id", REPO)[0] == 0
    _, tree = hub.repos[REPO].at("main")
    assert "model.onnx" not in tree and tree["notes.txt"] == b"mine" and "model.safetensors" in tree


def test_a_branch_keeps_what_only_the_main_branch_replaced(hub, packed, token, cli):
    """What a branch holds decides which of its files leave, not what lies in the main branch."""
    hub.put(REPO, {"config.json": (packed / "config.json").read_bytes(), "old.onnx": b"in both"})
    repo = hub.repos[REPO]
    repo.branches["v2"] = repo.branches["main"]
    repo.commit({"of_branch.onnx": b"in one"}, "v2")
    repo.commit({"of_main.onnx": b"in the other"})
    assert cli("publish", packed, "--repo-id", REPO, "--revision", "v2")[0] == 0
    (_, branch), (_, main) = repo.at("v2"), repo.at("main")
    assert "model.safetensors" in branch and not {n for n in branch if n.endswith(".onnx")}
    assert set(main) == {"config.json", "old.onnx", "of_main.onnx"}


@pytest.mark.parametrize("arguments, code, word", [
    (["--repo-id", "mine"], 2, "organisation/name"), (["--repo-id", REPO, "--create-pr", "--revision", "v2", "--dry-run"], 2, "leave out --revision"),
    (["--repo-id", REPO], 1, "no token")])
def test_a_request_that_cannot_be_met_is_refused_before_the_run_is_measured(arguments, code, word, packed, cli, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("eisnn_zoo.sharing.packing.pack", lambda *_, **__: pytest.fail("packed"))
    got, out, err = cli("publish", packed, "--data", packed, *arguments)
    assert (got, out) == (code, "") and word in err and err.count("\n") == 1


def test_dry_run_needs_no_network(packed, cli, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection"))
    code, out, err = cli("publish", packed, "--repo-id", REPO, "--dry-run")
    assert code == 0 and "model.safetensors" in out and "would go to me/net" in err


def _damage(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


@pytest.mark.parametrize("change, word", [
    (lambda f: (f / "state.pkl").write_bytes(pickle.dumps({})), "state.pkl does not belong"),
    (lambda f: (f / "link.json").symlink_to("/etc/passwd"), "link.json is a link"),
    (lambda f: (f / "recipe.yaml").write_text("weights: /home/someone/best.safetensors\n"), "/home/someone"),
    (lambda f: (f / "recipe.yaml").write_text("teacher: local-dir:/home/someone/best\n"), "/home/someone"),
    (_damage, "not the file of the table"),
    (lambda f: (f / "config.json").write_text((f / "config.json").read_text().replace("91.5", "99.5")), "pack the run again"),
    (lambda f: (f / "config.json").write_text((f / "config.json").read_text().replace('"time_steps": 4', '"time_steps": 5')), "time_steps"),
])
def test_what_is_not_published(change, word, packed, token, cli, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection"))
    change(packed)
    code, out, err = cli("publish", packed, "--repo-id", REPO)
    assert code == 1 and word in err and out == "" and err.count("\n") == 1


def test_publishing_that_is_refused(hub, packed, cli, monkeypatch):
    def refused(*words, code=1, repo=REPO):
        got, out, err = cli("publish", packed, "--repo-id", repo)
        assert got == code and out == "" and err.count("\n") == 1 and all(word in err for word in words), err

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    refused("no token", "hf auth login")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_wrong")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused("nothing was published", "401")
    assert REPO not in hub.repos
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_test")
    hub.trouble = lambda request: "/commit/" in request.path and (request.answer(500, b"{}") or True)
    refused("nothing was published", "500", "is empty")
    assert set(hub.repos[REPO].at("main")[1]) == set()
    hub.trouble = lambda request: "/repos/create" in request.path and (request.answer(403, b"{}") or True)
    refused("403", "no right", repo="them/net")
    hub.trouble = lambda request: False
    hub.put("them/other", {"config.json": b"{}", "model.bin": b"x"})
    refused("already holds another model", code=2, repo="them/other")
    hub.put("them/files", {"data.bin": b"x"})
    refused("already holds other files", code=2, repo="them/files")
    refused("organisation/name", code=2, repo="no_organisation")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused("nothing was published", "127.0.0.1:9 could not be reached")


def test_only_packed_models_are_published(tmp_path, cli, packed):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("model: ei_mlp2_mnist\n")
    (tmp_path / "run" / "environment.json").write_text("{}")
    for spec, word in ((tmp_path / "run", "eisnn-zoo pack"), (tmp_path, "no table of weights"), ("ei_vgg16_cifar10", "the authors'")):
        code, _, err = cli("publish", spec, "--repo-id", REPO, "--dry-run")
        assert code == 2 and word in err


# ---- download and verify ---------------------------------------------------------------------------------------------


def test_the_authors_repository(hub, cli, tmp_path, monkeypatch):
    hub.put(RELEASE_REPO, release_files("ei_vgg8_cifar10"))
    name = "ei_vgg8_cifar10.paper"
    assert cli("verify", name)[0] == 2  # not here yet
    code, out, err = cli("download", name)
    assert code == 0 and Path(out.strip()).is_file(), err
    code, out, err = cli("download", name, "--to", tmp_path / "models")
    folder = Path(out.strip())
    assert (code, folder) == (0, tmp_path / "models" / name), err
    assert cli("verify", name, folder)[0] == 0
    ours = tmp_path / "ours.safetensors"
    assert cli("convert", folder / "model.safetensors", ours)[0] == 0 and cli("verify", ours)[0] == 0
    asked = len(hub.requests)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # everything from here on without a network
    model, other = eisnn_zoo.create_model(name), eisnn_zoo.create_model(str(folder))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert torch.equal(model.head.ee.weight, released("ei_vgg8_cifar10")["layers.38.weight_ee"])
    assert len(hub.requests) == asked

    path = hub_client.cached(RELEASE_REPO, "CIFAR10-VGG8/model.safetensors").resolve()
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    code, out, _ = cli("verify", name)
    assert code == 1 and "truncated or altered" in out
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    assert torch.equal(eisnn_zoo.create_model(name).head.ee.weight, model.head.ee.weight) and path.read_bytes() == data
    (folder / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert cli("verify", folder)[0] == 1
    code, out, err = cli("download", name, "ei_vgg19_cifar10.paper")
    assert code == 1 and len(out.splitlines()) == 1 and "no vwOvOwv/DeepEISNN/CIFAR10-VGG19" in err
    assert "no vwOvOwv" in cli("download", "ei_vgg8_cifar10.paper", "--revision", "v9")[2]


@pytest.mark.parametrize("repo, folder, name", [(REPO, "", f"hf-hub:{REPO}"), (RELEASE_REPO, "CIFAR10-VGG8/", "ei_vgg8_cifar10.paper")])
def test_weights_and_configuration_are_of_one_commit(hub, repo, folder, name, model_folder):
    """Others are published just after the configuration was fetched."""
    config = release_configuration("ei_vgg8_cifar10") if folder else (model_folder(NAME) / "config.json").read_bytes()
    hub.put(repo, {f"{folder}config.json": config, f"{folder}model.safetensors": b"those of the configuration"})
    hub.trouble = lambda request: "model.safetensors" in request.path and not hub.put(repo, {f"{folder}model.safetensors": b"others"})
    assert locate(name).path.read_bytes() == b"those of the configuration"


@pytest.mark.parametrize("arguments, word", [
    ([], "name a model"), (["--all", "x"], "leave the names out"), (["a/b"], "hf-hub:"), (["ei_vgg9_cifar10"], "did you mean"),
    (["x.safetensors"], "no file"), ([str(hub_folder() / "ei_mlp2_mnist.zoo"), "--revision", "v1"], "no model on the Hub"), (["hf-hub:a/b@v1", "--revision", "v2"], "leave out --revision v2"),
    (["ei_vgg8_cifar10.zoo", "--revision", "v1"], "comes with the package"),
])
def test_downloads_that_cannot_be_meant(arguments, word, cli):
    code, out, err = cli("download", *arguments)
    assert code == 2 and word in err and out == ""


def test_verify_names_what_is_wrong(packed, cli):
    state = load_file(packed / "model.safetensors")
    with safe_open(packed / "model.safetensors", "pt") as f:
        header = f.metadata()
    assert cli("verify", packed)[0] == 0
    row = read_table(packed.parent / "weights.toml")[0]
    for key, value, word in (("stages.0.layers.0.current.ee.weight", -1.0, "Dale"), ("head.ee.weight", float("inf"), "finite")):
        changed = {**state, key: state[key].clone()}
        changed[key].view(-1)[0] = value
        save_file(changed, packed / "model.safetensors", header)
        put_row(replace(row, sha256=sha256(packed / "model.safetensors")), packed.parent / "weights.toml")
        code, out, err = cli("verify", packed, "--format", "json")
        wrong = [r for r in json.loads(out) if r["ok"] == "no"]
        assert code == 1 and len(wrong) == 1 and word in wrong[0]["seen"] and "did not pass" in err


def test_verify_means_what_every_command_means_by_a_name(packed, cli, monkeypatch):
    """The zoo's weights, although a damaged folder of that name lies here."""
    folder = packed.parent / "ei_mlp4_mnist.zoo"
    packed.rename(folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    monkeypatch.chdir(folder.parent)
    assert cli("verify", "ei_mlp4_mnist.zoo")[0] == 0 and cli("card", "ei_mlp4_mnist.zoo")[0] == 0
    for here in ("./ei_mlp4_mnist.zoo", "local-dir:ei_mlp4_mnist.zoo"):
        assert cli("verify", here)[0] == 1
    code, _, err = cli("verify", "ei_mlp4_mnist.zoo", "gone")
    assert code == 1 and "gone: not here, and not checked" in err and "do not use" not in err
    (folder / "config.json").write_text("damaged")
    code, _, err = cli("verify", "ei_mlp4_mnist.zoo", "./ei_mlp4_mnist.zoo")
    assert code == 1 and "./ei_mlp4_mnist.zoo did not pass" in err and "not here" not in err
    code, _, err = cli("verify", "gone.safetensors")
    assert code == 2 and "there is no file gone.safetensors" in err


def test_a_packed_model_is_published_as_it_was_measured(packed, cli, tmp_path):
    code, _, err = cli("publish", packed, "--data", tmp_path, "--repo-id", REPO, "--dry-run")
    assert code == 2 and "leave out --data" in err
    for option in ("--tag", "--license"):
        code, _, err = cli("publish", packed, option, "other", "--repo-id", REPO, "--dry-run")
        assert code == 2 and "were fixed then" in err
    for wrong in ("model.safetensors", "config.json"):
        before = (packed / wrong).read_bytes()
        assert cli("card", packed, "--output", packed / wrong)[0] == 2 and (packed / wrong).read_bytes() == before


# ---- convert ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_convert_and_back_is_bit_exact(dtype, cli, tmp_path):
    theirs = released("ei_mlp4_mnist", dtype)
    source, ours, back = (tmp_path / f"{n}.safetensors" for n in ("theirs", "ours", "back"))
    save_file(theirs, source)
    assert cli("convert", source, ours)[0] == 2  # whose weights they are is not said
    assert cli("convert", source, ours, "--model", "ei_mlp4_mnist") == (0, f"{ours}\n", "ei_mlp4_mnist, from the release's layout into ours\n")
    assert cli("convert", ours, back)[0] == 0
    returned = load_file(back)
    assert returned.keys() == theirs.keys()
    last = max(int(k.split(".")[1]) for k in theirs if k.endswith("gain_e"))
    for key, value in theirs.items():
        assert returned[key].dtype == dtype and returned[key].shape == value.shape
        if key not in {f"layers.{last}.{leaf}" for leaf in ("gain_i", "gain_e", "bias")}:
            assert torch.equal(returned[key], value), key
    save_file(load_file(ours), ours)  # as if trained further: nothing is known of the release's layout
    assert "--like" in cli("convert", ours, back, "--model", "ei_mlp4_mnist")[2]
    assert cli("convert", ours, back, "--model", "ei_mlp4_mnist", "--like", source)[0] == 0
    assert all(torch.equal(v, theirs[k]) for k, v in load_file(back).items())


def test_convert_keeps_the_types_of_a_baseline(cli, tmp_path):
    network = build("bn_resnet18_cifar10", dtype=torch.float16)
    own = network.state_dict()
    theirs = {name: torch.full_like(own[ours], 70_000) if name.endswith("num_batches_tracked") else own[ours].clone()
              for ours, name in release_names(network)[0].items()}
    source, ours, back = (tmp_path / f"{n}.safetensors" for n in ("theirs", "ours", "back"))
    save_file(theirs, source)
    assert cli("convert", source, ours, "--model", "bn_resnet18_cifar10")[0] == 0
    assert cli("convert", ours, back)[0] == 0
    returned = load_file(back)
    assert returned.keys() == theirs.keys() and all(returned[k].dtype == v.dtype and torch.equal(returned[k], v) for k, v in theirs.items())


def test_convert_what_cannot_be_converted(cli, tmp_path):
    source = tmp_path / "x.safetensors"
    save_file({"layers.0.weight_ei": torch.zeros(2, 2)}, source)
    for arguments, word in (([source, tmp_path / "o.pth"], "neither read nor written"), ([source, tmp_path / "no" / "o.safetensors"], "no folder"),
                            ([source, tmp_path / "o.safetensors", "--model", "ei_mlp4_mnist"], "does not hold the weights"),
                            ([source, source, "--model", "ei_mlp4_mnist"], "is what is read"),
                            ([tmp_path / "none.safetensors", tmp_path / "o.safetensors"], "there is no file")):
        code, _, err = cli("convert", *arguments)
        assert code in (1, 2) and word in err and err.count("\n") == 1 and not (tmp_path / "o.safetensors").exists()


@pytest.mark.slow
def test_timm_loads_a_published_model(hub, packed, token, cli, tmp_path):
    assert cli("publish", packed, "--repo-id", REPO)[0] == 0
    code = (f"import eisnn_zoo, timm; m = timm.create_model('hf-hub:{REPO}', pretrained=True); "
            f"o = eisnn_zoo.create_model({str(packed)!r}); print(all(bool((a == b).all()) for a, b in "
            "zip(m.state_dict().values(), o.state_dict().values(), strict=True)), m.time_steps)")
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True 4", done.stderr


@pytest.mark.parametrize("own, said", [(90.5, "90.5 % by its own record"), ("\x1b[2J", "no figure")])
def test_a_figure_of_ones_own_is_a_number(model_folder, own, said):
    located = locate(str(model_folder("ei_mlp2_mnist")))
    assert _accuracy(replace(located, row=None, config=replace(located.config, facts={"top1": own}))).seen == said
