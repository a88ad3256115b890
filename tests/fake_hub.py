"""A Hugging Face Hub on the loopback interface: what the real client asks for, and the ways in which it can go wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest


class Repo:
    def __init__(self):
        self.commits: dict[str, dict[str, bytes]] = {"0" * 40: {}}
        self.branches = {"main": "0" * 40}
        self.messages: list[str] = []
        self.large: set[str] = set()

    def commit(self, files: dict[str, bytes | None], branch: str = "main", message: str = "") -> str:
        tree = {name: data for name, data in {**self.commits[self.branches[branch]], **files}.items() if data is not None}
        name = hashlib.sha1(repr((sorted(tree), len(self.commits))).encode()).hexdigest()
        self.commits[name] = tree
        self.branches[branch] = name
        self.messages.append(message)
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        name = self.branches.get(revision, revision)
        return (name, self.commits[name]) if name in self.commits else None


class FakeHub:
    """``repos`` by name; ``trouble(request)`` may answer a request itself by returning True.

    Attributes:
        altered: path in a repository to a function that changes the bytes of an answer, not its hash or length.
        cuts: lengths after which the next answers to GET are cut off, one after the other.
        requests: "METHOD path" of everything asked.
        token: the only one that may write.
    """

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.altered: dict = {}
        self.cuts: list[int] = []
        self.requests: list[str] = []
        self.trouble = lambda request: False
        self.token = "hf_test"
        self.lfs: dict[str, bytes] = {}
        self.stop = threading.Event()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def put(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        return self.repos.setdefault(repo, Repo()).commit(files, branch)

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.requests)


@contextmanager
def running():
    hub = FakeHub()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stop.set()
        hub.server.shutdown()
        hub.server.server_close()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A running Hub that this process's client talks to, an empty cache, no pauses between its tries."""
    from huggingface_hub import constants

    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 60)  # this machine may be busy
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
        monkeypatch.setattr(time, "sleep", lambda _: None)  # the client's pauses between tries
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes | dict | list = b"", **headers) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, code: str, status: int = 404) -> None:
        self.answer(status, b"{}", X_Error_Code=code, X_Error_Message=code)

    def _begin(self) -> str | None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) \
            if self.headers.get("Transfer-Encoding") != "chunked" else self._chunks()
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return None if self.hub.trouble(self) else path

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self._begin()
        if path is None:
            return
        if m := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*m.groups())
        if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            found = self._at(m[1], m[2] or "main")
            if found:
                files = [{"rfilename": name} for name in found[1]]
                self.answer(200, {"id": m[1], "modelId": m[1], "sha": found[0], "siblings": files, "tags": [], "private": False})
            return None
        if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            found = self._at(m[1], m[2])
            if found:
                self.answer(200, [{"type": "file", "path": n, "size": len(d), "oid": _git(d)} for n, d in found[1].items()])
            return None
        return self.missing("RepoNotFound")

    def _at(self, repo: str, revision: str):
        if repo not in self.hub.repos:
            return self.missing("RepoNotFound")
        found = self.hub.repos[repo].at(revision)
        return found or self.missing("RevisionNotFound")

    def _file(self, repo: str, revision: str, name: str) -> None:
        found = self._at(repo, revision)
        if not found:
            return
        commit, tree = found
        if name not in tree:
            self.answer(404, b"{}", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        data = tree[name]
        etag = hashlib.sha256(data).hexdigest() if name.endswith((".safetensors", ".onnx")) else _git(data)
        if name in self.hub.altered and self.command == "GET":
            data = self.hub.altered[name](data)
        start = int(m[1]) if (m := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.command == "GET" and self.hub.cuts:
            cut = self.hub.cuts.pop(0)
            self.send_response(206 if start else 200)
            for key, value in {**headers, "Content-Length": len(data) - start}.items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(data[start:start + cut])
            self.wfile.flush()
            self.close_connection = True
            return
        self.answer(206 if start else 200, data[start:], **headers)

    def do_PUT(self):
        path = self._begin()
        if path is not None:
            self.hub.lfs[path.rpartition("/")[2]] = self.body
            self.answer(200)

    def do_POST(self):
        path = self._begin()
        if path is None:
            return
        hub = self.hub
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401, b"{}", X_Error_Message="Invalid credentials")
        if path == "/api/repos/create":
            asked = json.loads(self.body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name in hub.repos:
                return self.answer(409, {"error": "exists", "url": f"{hub.url}/{name}"})
            hub.repos[name] = Repo()
            return self.answer(200, {"url": f"{hub.url}/{name}", "name": name})
        if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", path):
            repo = hub.repos[m[1]]
            if m[2] in repo.branches:
                return self.answer(409, {"error": "exists"})
            repo.branches[m[2]] = repo.branches["main"]
            return self.answer(200, {})
        if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", path):
            files = json.loads(self.body)["files"]
            return self.answer(200, {"files": [{"path": f["path"], "shouldIgnore": False, "uploadMode": "lfs" if f["path"].endswith(
                (".safetensors", ".onnx")) else "regular"} for f in files]})
        if path.endswith("/info/lfs/objects/batch"):
            return self.answer(200, {"transfer": "basic", "objects": [
                {**o, "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}} for o in json.loads(self.body)["objects"]]})
        if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", path):
            lines = [json.loads(line) for line in self.body.splitlines()]
            files = {v["path"]: base64.b64decode(v["content"]) if line["key"] == "file" else hub.lfs[v["oid"]]
                     for line in lines if line["key"] in ("file", "lfsFile") for v in [line["value"]]}
            files |= {line["value"]["path"]: None for line in lines if line["key"] == "deletedFile"}
            pull = "create_pr" in self.path
            if pull:
                hub.repos[m[1]].branches["refs/pr/1"] = hub.repos[m[1]].branches["main"]
            oid = hub.repos[m[1]].commit(files, "refs/pr/1" if pull else m[2], lines[0]["value"]["summary"])
            more = {"pullRequestUrl": f"{hub.url}/{m[1]}/discussions/1"} if pull else {}
            return self.answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{m[1]}/commit/{oid}", **more})
        return self.missing("RepoNotFound")


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
