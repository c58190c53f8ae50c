"""A hub on the loopback: what huggingface_hub asks for, answered from folders; and how a hub may fail."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

WEIGHTS = "model.safetensors"
LARGE = (".safetensors", ".gguf")
"""Endings of files whose sha256 the hub promises."""


class Hub(ThreadingHTTPServer):
    """Repositories by name: commit -> folder, the newest commit last."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repos: dict[str, dict[str, Path]] = {}
        self.gated: set[str] = set()
        self.broken: dict[str, int] = {}
        """Repository -> how many of its next downloads of weights break off in the middle."""
        self.lies: set[str] = set()
        """Repositories whose weights are not those that their sha256 promises."""
        self.facts: dict[str, dict] = {}
        """What a repository's page says besides its files: cardData, safetensors, gated."""
        self.silent: set[str] = set()
        """Repositories whose list of commits is never answered: the connection closes."""
        self.slow: set[str] = set()
        """Repositories whose weights come in ten pieces, a fifth of a second apart."""
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and Range of every request."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, repo: str, folder: Path, commit: str) -> None:
        self.repos.setdefault(repo, {})[commit] = folder


@contextmanager
def reached_here(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """A hub that this process asks, with a cache of its own."""
    from huggingface_hub import constants

    found = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", found.url)
    template = f"{found.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    try:
        yield found
    finally:
        found.shutdown()
        found.server_close()


class Answers(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        hub: Hub = self.server
        path = self.path.partition("?")[0]
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if commits := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/commits/main", path):
            return self._commits(commits[1])
        # A data set's files are asked for like a model's.
        path = path.removeprefix("/datasets")
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repo = (info or file)[1] if info or file else ""
        if repo not in hub.repos:
            return self._error(404, "RepoNotFound")
        if repo in hub.gated:
            return self._error(401, "GatedRepo")
        wanted = (info[3] if info else file[2]) or "main"
        commits = hub.repos[repo]
        commit = list(commits)[-1] if wanted == "main" else wanted
        if commit not in commits:
            return self._error(404, "RevisionNotFound")
        if info:
            return self._info(repo, commit, tree=info[2] == "tree")
        return self._file(repo, commit, commits[commit] / file[3], body=body)

    def _error(self, status: int, code: str) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": code}, json.dumps({"error": code}).encode())

    def _commits(self, repo: str) -> None:
        if repo in self.server.silent:
            self.close_connection = True
            return
        told = [
            {"id": commit, "title": "", "message": "", "authors": [], "date": "2024-11-12T00:00:00.000Z"}
            for commit in reversed(self.server.repos.get(repo, {}))
        ]
        self._send(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def _info(self, repo: str, commit: str, *, tree: bool) -> None:
        names = sorted(path.name for path in self.server.repos[repo][commit].iterdir())
        told = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names]
        files = [{"rfilename": name} | self._large(self.server.repos[repo][commit] / name) for name in names]
        whole = {"id": repo, "modelId": repo, "sha": commit, "siblings": files} | self.server.facts.get(repo, {})
        self._send(200, {"Content-Type": "application/json"}, json.dumps(told if tree else whole).encode())

    def _large(self, path: Path) -> dict:
        if path.suffix not in LARGE:
            return {}
        data = path.read_bytes()
        promised = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 1}
        return {"size": len(data), "lfs": promised}

    def _file(self, repo: str, commit: str, path: Path, *, body: bool) -> None:
        hub: Hub = self.server
        if not path.is_file():
            return self._error(404, "EntryNotFound")
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if path.suffix in LARGE:
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            if repo in hub.lies:
                data = bytes(len(data))
        first = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        status, data = (206, data[first:]) if first else (200, data)
        if body and path.name == WEIGHTS and hub.broken.get(repo, 0):
            hub.broken[repo] -= 1
            self._send(status, headers | {"Content-Length": str(len(data))}, data[: len(data) // 2])
            self.close_connection = True
            self.connection.close()
            return None
        self._send(status, headers | {"Content-Length": str(len(data))}, b"")
        size = -(-len(data) // 10) if path.name == WEIGHTS and repo in hub.slow else len(data)
        for begin in range(0, len(data) if body else 0, max(size, 1)):
            self.wfile.write(data[begin : begin + size])
            self.wfile.flush()
            time.sleep(0.2 if size < len(data) else 0)
        return None

    def _send(self, status: int, headers: dict, data: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
            self.wfile.flush()
