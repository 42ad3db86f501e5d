"""A hub on this machine: as much of its interface as creating, uploading and downloading take."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_a_test"


class Hub(ThreadingHTTPServer):
    """Repositories, each a map of path to content at one commit."""

    request_queue_size = 32

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str) -> str:
        """Of what the repository holds now."""
        return hashlib.sha1(b"".join(self.repositories[name].values())).hexdigest()


def _oid(content: bytes) -> str:
    """As Git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: object, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.server.requests.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials"})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            return self._answer(200, {"url": f"{self.server.url}/{name}"})
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        owner, model, what, _ = path.removeprefix("/api/models/").split("/")
        files = self.server.repositories[f"{owner}/{model}"]
        if what == "preupload":
            wanted = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in wanted]
            return self._answer(200, {"files": modes})
        assert what == "commit"
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = self.server.commit(f"{owner}/{model}")
        url = f"{self.server.url}/{owner}/{model}/commit/{commit}"
        return self._answer(200, {"commitUrl": url, "commitOid": commit})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name = "/".join(parts[:2])
        if name not in self.server.repositories:
            return self._answer(404, {"error": "no"}, X_Error_Code="RepoNotFound")
        files, commit = self.server.repositories[name], self.server.commit(name)
        if path.startswith("/api/models") and "tree" in parts:
            tree = [
                {"type": "file", "path": file, "size": len(content), "oid": _oid(content)}
                for file, content in files.items()
            ]
            return self._answer(200, tree)
        if path.startswith("/api/models"):
            siblings = [{"rfilename": file} for file in files]
            return self._answer(200, {"id": name, "sha": commit, "siblings": siblings})
        content = files["/".join(parts[4:])]
        return self._answer(200, content, ETag=f'"{_oid(content)}"', X_Repo_Commit=commit)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
