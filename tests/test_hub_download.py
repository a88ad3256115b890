"""Fetching, with the real client, from a Hub on this machine. No torch."""

import hashlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eisnn_zoo import hub_client
from eisnn_zoo.errors import UsageError, ZooError

pytest_plugins = ("fake_hub",)
REPO, FILE = "org/net", "model.safetensors"
DATA = bytes(range(256)) * 2000


@pytest.fixture(autouse=True)
def _repository(hub):
    hub.put(REPO, {FILE: DATA, "config.json": b'{"a": 1}' * 200})


def blobs(tmp_path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("blobs/*"))


def test_a_file_comes_whole_once_and_from_the_cache_then(hub, tmp_path):
    path = hub_client.fetch(REPO, FILE)
    assert path.read_bytes() == DATA and hub_client.recorded_hash(path) == hashlib.sha256(DATA).hexdigest()
    small = hub_client.fetch(REPO, "config.json")
    assert len(hub_client.recorded_hash(small)) == 40 and hub_client.commit(small) == hub.repos[REPO].branches["main"]
    asked = len(hub.requests)
    assert hub_client.obtain(REPO, FILE) == path and len(hub.requests) == asked
    assert hub_client.fetch(REPO, FILE, hub_client.commit(path)) == path and len(hub.requests) == asked


@pytest.mark.parametrize("cuts", [[0], [1], [100_000, 0, 200_000], [len(DATA) - 1], [5] * 4])
def test_cut_connections_are_gone_on_with(cuts, hub, tmp_path):
    hub.cuts = list(cuts)
    assert hub_client.fetch(REPO, FILE).read_bytes() == DATA
    assert len(blobs(tmp_path)) == 1 and not hub.cuts


def test_a_connection_that_always_breaks(hub, tmp_path):
    hub.cuts = [0] * 100
    with pytest.raises(ZooError, match="connection broke"):
        hub_client.fetch(REPO, FILE)
    assert blobs(tmp_path) == []


@pytest.mark.parametrize("damage", [lambda d: d[:1000], lambda d: b"", lambda d: b"x" + d[1:], lambda d: d + b"x"])
@pytest.mark.parametrize("name", [FILE, "config.json"])
def test_a_damaged_cached_file_is_named_and_fetched_again(damage, name, hub, caplog):
    path = hub_client.fetch(REPO, name)
    whole = path.read_bytes()
    path.resolve().write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING, "eisnn_zoo"):
        assert hub_client.obtain(REPO, name).read_bytes() == whole
    assert str(path) in caplog.text and hub.count(f"GET .*{name}") == 2


def test_altered_twice_is_an_error_and_nothing_stays(hub, tmp_path):
    hub.altered[FILE] = lambda data: b"y" + data[1:]
    with pytest.raises(ZooError, match="altered twice"):
        hub_client.fetch(REPO, FILE)
    assert hub.count(f"GET .*{FILE}") == 2 and blobs(tmp_path) == [] and hub_client.cached(REPO, FILE) is None


def test_a_store_that_repositories_share_is_looked_through(hub, tmp_path):
    """As newer clients keep files: what bears the Hub's hash is a link to them."""
    path = hub_client.fetch(REPO, FILE)
    blob, shared = path.resolve(), tmp_path / "cache" / "blobs" / "ab" / "cdef"
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert hub_client.recorded_hash(path) == hashlib.sha256(DATA).hexdigest() and hub_client.is_whole(path)
    shared.write_bytes(DATA[:-1] + b"x")
    assert not hub_client.is_whole(path) and hub_client.obtain(REPO, FILE).read_bytes() == DATA


def test_altered_once_on_the_way_is_fetched_again(hub):
    def once(data):
        del hub.altered[FILE]
        return b"y" + data[1:]

    hub.altered[FILE] = once
    assert hub_client.fetch(REPO, FILE).read_bytes() == DATA


def test_a_damaged_file_without_a_network(hub, monkeypatch):
    from huggingface_hub import constants

    path = hub_client.fetch(REPO, FILE)
    path.resolve().write_bytes(DATA[:10])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ZooError, match=r"truncated or altered and cannot be fetched again: HF_HUB_OFFLINE"):
        hub_client.obtain(REPO, FILE)


@pytest.mark.parametrize("status, word", [(401, "hf auth login"), (403, "403"), (404, "404"), (429, "too many requests"),
                                          (500, "500"), (502, "502"), (503, "503"), (504, "504")])
def test_a_refusing_hub_is_one_sentence_and_the_cache_still_serves(status, word, hub):
    refuse = lambda request: request.answer(status, b"{}") or True
    hub.trouble = refuse
    with pytest.raises(ZooError, match=word) as caught:
        hub_client.fetch(REPO, FILE)
    assert "\n" not in str(caught.value)
    hub.trouble = lambda request: False
    hub_client.fetch(REPO, FILE)
    hub.trouble = refuse
    assert hub_client.obtain(REPO, FILE).read_bytes() == DATA
    if status >= 500:
        assert hub_client.fetch(REPO, FILE).read_bytes() == DATA


def test_gated_missing_and_misnamed(hub):
    hub.trouble = lambda request: request.missing("GatedRepo", 403) or True
    with pytest.raises(ZooError, match="gated"):
        hub_client.fetch(REPO, FILE)
    hub.trouble = lambda request: False
    for repo, file, revision, word in (("org/none", FILE, None, "no repository org/none"), (REPO, "none.json", None, "none.json"),
                                       (REPO, FILE, "v9", "at v9"), ("a/b/c", FILE, None, "organisation/name")):
        with pytest.raises(UsageError, match=word):
            hub_client.fetch(repo, file, revision)


def test_a_hub_that_refuses_in_the_middle(hub, tmp_path):
    hub.trouble = lambda request: request.command == "GET" and (request.answer(500, b"") or True)
    with pytest.raises(ZooError, match="500"):
        hub_client.fetch(REPO, FILE)
    assert blobs(tmp_path) == []


def test_a_slow_hub(hub, monkeypatch):
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(file_download, "_ETAG_RETRY_TIMEOUT", 0.2, raising=False)  # its second, patient try
    hub.trouble = lambda request: hub.stop.wait(300) or True
    with pytest.raises(ZooError, match="took too long"):
        hub_client.fetch(REPO, FILE)
    hub.stop.set()


def test_a_dead_endpoint(hub, monkeypatch):
    path = hub_client.fetch(REPO, FILE)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_client.fetch(REPO, FILE) == path
    with pytest.raises(ZooError, match=r"127.0.0.1:9 could not be reached"):
        hub_client.fetch(REPO, "other.json")


def test_something_that_is_no_hub(hub):
    hub.trouble = lambda request: request.answer(200, b"<html>welcome</html>") or True
    with pytest.raises(ZooError, match="does not answer as a Hub"):
        hub_client.fetch(REPO, FILE)


@pytest.mark.parametrize("number, word", [(28, "disk is full"), (13, "cannot be written"), (30, "cannot be written")])
def test_a_full_or_read_only_cache(number, word, hub, monkeypatch):
    from huggingface_hub import file_download

    def fail(*_args, **_kwargs):
        raise OSError(number, os.strerror(number), "/cache")

    monkeypatch.setattr(file_download, "_chmod_and_move", fail)
    with pytest.raises(ZooError, match=word):
        hub_client.fetch(REPO, FILE)


def test_no_trusted_connection():
    error = OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")
    assert "trusted connection" in str(hub_client.explain(error, REPO, REPO))


@pytest.mark.parametrize("error, words", [
    (UnicodeEncodeError("ascii", "h\xe9", 1, 2, "ordinal not in range"), "HF_TOKEN holds letters that no token has"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "models--org--net and run the command again"),
    (NotADirectoryError(20, "Not a directory"), "models--org--net and run the command again"),
    (RuntimeError("Could not determine home directory."), "set HF_HOME to a folder"),
    (type("UnsupportedProtocol", (Exception,), {})("missing protocol"), "check HF_ENDPOINT"),
])
def test_what_is_amiss_on_this_machine_is_named(error, words):
    assert words in str(hub_client.explain(error, REPO, f"{REPO}/{FILE}"))


def test_the_revision_that_is_asked_for(hub):
    first = hub.repos[REPO].branches["main"]
    hub.put(REPO, {FILE: b"new"})
    assert hub_client.fetch(REPO, FILE).read_bytes() == b"new"
    assert hub_client.fetch(REPO, FILE, first).read_bytes() == DATA


def test_another_place_than_the_hubs_cache(hub, tmp_path):
    place = tmp_path / "snapshots" / "mine"  # a name that the cache itself uses, too
    path = hub_client.obtain(REPO, FILE, cache_dir=place)
    assert path.is_relative_to(place) and hub_client.commit(path) == hub.repos[REPO].branches["main"]
    asked = len(hub.requests)
    assert hub_client.obtain(REPO, FILE, cache_dir=place) == path and len(hub.requests) == asked and not (tmp_path / "cache").exists()


# ---- other processes -------------------------------------------------------------------------------------------------


def process(hub, tmp_path) -> subprocess.Popen:
    code = f"from eisnn_zoo.hub_client import fetch; print(fetch({REPO!r}, {FILE!r}))"
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0",
           "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_fetch_the_same_model(hub, tmp_path):
    both = [process(hub, tmp_path) for _ in range(2)]
    paths = set()
    for one in both:
        out, err = one.communicate(timeout=120)
        assert one.returncode == 0, err
        paths.add(out.strip())
    assert len(paths) == 1 and Path(paths.pop()).read_bytes() == DATA and len(blobs(tmp_path)) == 1


def test_killed_in_the_middle_of_a_download(hub, tmp_path):
    halfway = hub.stop.__class__()

    def stall(request):
        if request.command != "GET":
            return False
        request.send_response(200)
        request.send_header("Content-Length", str(len(DATA)))
        request.end_headers()
        request.wfile.write(DATA[:100_000])
        request.wfile.flush()
        halfway.set()
        hub.stop.wait(60)
        return True

    hub.trouble = stall
    victim = process(hub, tmp_path)
    assert halfway.wait(120)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL and hub_client.cached(REPO, FILE) is None
    hub.trouble = lambda request: False
    assert hub_client.fetch(REPO, FILE).read_bytes() == DATA
