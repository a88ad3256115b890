"""Weight files and configurations made to mislead: several hundred, generated; each is one error that names the file."""

import json
import random
import struct
import time

import pytest

from eisnn_zoo.errors import ZooError
from eisnn_zoo.locating import locate
from eisnn_zoo.weights import load_network

NAME = "ei_mlp2_mnist"


@pytest.fixture
def good(model_folder):
    """(folder, header, data) of a whole model: its header as JSON, and the tensors' bytes."""
    folder = model_folder(NAME)
    raw = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return folder, json.loads(raw[8:8 + length]), raw[8 + length:]


def file(header, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def test_labels_move_no_cursor_and_options_place_no_network(good):
    folder, *_ = good
    config = json.loads((folder / "config.json").read_text())
    (folder / "model.safetensors").write_bytes(file({k: v for k, v in good[1].items() if k != "__metadata__"}, good[2]))
    config["label_names"] = ["\x1b[2J", "\ud800", "a\nb", "caf\xe9 \u200d", *map(str, range(6))]
    (folder / "config.json").write_text(json.dumps(config))
    assert locate(str(folder)).config.label_names[:4] == ("\ufffd[2J", "\ufffd", "a\ufffdb", "caf\xe9 \u200d")
    config["model_args"]["device"] = "meta"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ZooError, match=r"config\.json: model_args names a device"):
        locate(str(folder))


def refused(folder, kind: str) -> None:
    """Loading this folder is one error in one line, soon, and leaves nothing behind."""
    before, start = sorted(p.name for p in folder.parent.rglob("*")), time.process_time()
    with pytest.raises(ZooError) as caught:
        load_network(locate(str(folder)))
    assert "\n" not in str(caught.value).strip() and len(str(caught.value)) < 2000, kind
    assert time.process_time() - start < 5, kind
    assert sorted(p.name for p in folder.parent.rglob("*")) == before, kind


def headers(header: dict, data: bytes, rng: random.Random):
    """Files with headers that lie, by name."""
    names = [n for n in header if n != "__metadata__"]

    def changed(name, **fields):
        return {**header, name: {**header[name], **fields}}

    for length in (0, 1, 7, 2**20, 2**31, 2**40, 2**63, 2**64 - 1, len(data), 100 * 2**20):
        yield f"length {length}", file(header, data, length)
    for _ in range(60):
        name = rng.choice(names)
        begin, end = header[name]["data_offsets"]
        kind = rng.choice(["overlap", "beyond", "negative", "reversed", "huge", "short", "texts"])
        offsets = {"overlap": [0, end - begin] if begin else [4, end + 4], "beyond": [len(data), len(data) + end - begin],
                   "negative": [-4, end - begin - 4], "reversed": [end, begin] if end > begin else [1, 0], "huge": [begin, 2**62],
                   "short": [begin, max(begin, end - 4)] if end - begin > 4 else [begin, end + 4], "texts": ["0", "4"]}[kind]
        yield f"offsets {kind} of {name}", file(changed(name, data_offsets=offsets), data)
    for _ in range(50):
        name = rng.choice(names)
        dtype = rng.choice([d for d in ("I32", "U32", "I8", "BOOL", "F8_E4M3", "F8_E5M2", "I64", "C64", "nonsense", 3, None)
                            if d != header[name]["dtype"]])
        yield f"{name} as {dtype}", file(changed(name, dtype=dtype), data)
    for _ in range(40):
        name = rng.choice(names)
        shape = header[name]["shape"]
        bad = rng.choice([[*shape, 2], [2**40, *shape], [-1], [2**32, 2**32], "x", None, [*reversed(shape), 1, 1], [1.5]])
        yield f"{name} of shape {bad}", file(changed(name, shape=bad), data)
    for _ in range(20):
        name = rng.choice(names)
        yield f"without {name}", file({k: v for k, v in header.items() if k != name}, data)
        other = rng.choice(["../../" + name, name + "\n", "x" * 10_000, name.upper() + "_", ""])
        yield f"{name} as {other[:20]!r}", file({(other if k == name else k): v for k, v in header.items()}, data)
    text = json.dumps(header)
    for name in names[:5]:
        twice = text[:-1] + f', "{name}": ' + json.dumps({**header[name], "data_offsets": [0, 4]}) + "}"
        yield f"{name} twice", file(twice.encode(), data)
    for broken in (b"[]", b"null", b"{", b"{" * 10_000, b"\xff\xfe", b'{"a": 1}', b'{"__metadata__": 3}', b"", text.encode()[:-1], b"0" * 5000):
        yield f"header {broken[:10]!r}", file(broken, data)
    for cut in (0, 4, 8, 100, len(data) // 2):
        yield f"cut at {cut}", file(header, data)[:cut]


def test_safetensors_that_lie(good, tmp_path):
    folder, header, data = good
    rng = random.Random(1)
    seen = 0
    for kind, content in headers(header, data, rng):
        (folder / "model.safetensors").write_bytes(content)
        refused(folder, kind)
        seen += 1
    assert seen >= 200
    (folder / "model.safetensors").write_bytes(file(header, data))
    assert load_network(locate(str(folder))).initialised  # the pattern itself is good


def configurations(raw: dict, rng: random.Random):
    """config.json texts that lie, by name. The weight file keeps its own true one."""

    def changed(part=None, **fields):
        return json.dumps({**raw, **fields} if part is None else {**raw, part: {**raw[part], **fields}})

    values = [None, -1, 0, 3, 11, 10**9, 2.5, "x", [], {}, True, "../../etc", 10**30]
    for key, true in raw["model_args"].items():
        for value in values:
            if value != true and not (value is None and key not in ("num_classes", "in_chans")) and type(value) is not type({}):
                yield f"model_args.{key} = {value!r}", changed("model_args", **{key: value})
    for value in values:
        if value != 10:
            yield f"num_classes = {value!r}", changed(num_classes=value)
        yield f"architecture = {value!r}", changed(architecture=value)
        if value:
            yield f"label_names = {value!r}", changed(label_names=value)
    for value in ([3, 32], [1, 32, 32], [0, 28, 28], "1x28x28", [1, 28, -28], [1, 10**9, 10**9], [1, 28.5, 28], [1, None, 28]):
        yield f"input_size = {value!r}", changed("pretrained_cfg", input_size=value)
    for other in ("ei_vgg8_cifar10", "ei_mlp4_mnist", "bn_mlp2_mnist", "ei_mlp2", "../ei_mlp2_mnist", "EI_MLP2_MNIST"):
        yield f"architecture {other}", changed(architecture=other)
    for part in ("model_args", "pretrained_cfg", "eisnn_zoo"):
        for value in (3, "x", [1]):
            yield f"{part} = {value!r}", changed(**{part: value})
    yield "in_chans that Python takes for a 1", changed("model_args", in_chans=True)
    yield "unknown option", changed("model_args", nonsense=1)
    yield "labels in another order", changed(label_names=raw["label_names"][::-1])
    for text in ("", "{", "[]", "null", "3", '"x"', "[" * 50_000, "\x00", '{"architecture": ' * 2000, " " * (2**20 + 1)):
        yield f"text {text[:12]!r} of {len(text)}", text


def test_configurations_that_lie(good):
    folder, _, _ = good
    raw = json.loads((folder / "config.json").read_text())
    seen = 0
    for kind, text in configurations(raw, random.Random(1)):
        (folder / "config.json").write_text(text)
        refused(folder, kind)
        seen += 1
    assert seen >= 100
    with (folder / "config.json").open("r+b") as f:
        f.truncate(100 * 2**20)
    refused(folder, "100 MB")


def test_a_lone_file_whose_own_configuration_lies(good):
    folder, header, data = good
    (folder / "config.json").unlink()
    path = folder / "model.safetensors"
    raw = json.loads(header["__metadata__"]["config"])
    for config in ("", "{", "[]", "3", json.dumps({**raw, "architecture": "ei_vgg8_cifar10"}), json.dumps({**raw, "num_classes": 3})):
        path.write_bytes(file({**header, "__metadata__": {"config": config}}, data))
        with pytest.raises(ZooError):
            load_network(locate(str(path)))
