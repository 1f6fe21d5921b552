"""A hub on this machine: the routes of huggingface.co that reading and committing a model need, kept in memory.

https://huggingface.co/docs/hub/api and the Git LFS batch API. A commit's parent is compared with the branch, as the real one does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class FakeHub:
    """Repositories by name: each a list of commits, oldest first, as (sha, files)."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[tuple[str, str, str]] = []
        """Method, path, and what the Authorization header said."""
        self.uploads: dict[str, bytes] = {}
        self.url = ""

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Add a commit; returns its hash."""
        history = self.commits.setdefault(name, [])
        content = {**(history[-1][1] if history else {}), **files}
        seed = repr((len(history), sorted((k, hashlib.sha256(v).hexdigest()) for k, v in content.items())))
        history.append((hashlib.sha1(seed.encode()).hexdigest(), content))
        return history[-1][0]

    def at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        history = self.commits.get(name, [])
        if revision == "main":
            return history[-1] if history else None
        return next((commit for commit in history if commit[0] == revision), None)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Serve an empty hub on a free port for the length of the block."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, content: Any = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content if content is not None else {}).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, code: str) -> None:
        self._answer(404, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def _parts(self) -> list[str]:
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append((self.command, path, self.headers.get("Authorization", "")))
        return path.strip("/").split("/")

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[:2] == ["api", "models"]:
            self._describe("/".join(parts[2:4]), revision=parts[5] if len(parts) > 5 else "main", as_tree=parts[4:5] == ["tree"])
        elif parts[2:3] == ["resolve"]:
            found = self.hub.at("/".join(parts[:2]), parts[3])
            content = found[1].get("/".join(parts[4:])) if found else None
            if found is None or content is None:
                self._missing("EntryNotFound")
            else:
                self._answer(200, content, X_Repo_Commit=found[0], ETag=f'"{hashlib.sha256(content).hexdigest()}"')
        else:
            self._missing("NotFound")

    def _describe(self, name: str, *, revision: str, as_tree: bool) -> None:
        found = self.hub.at(name, revision)
        if found is None:
            self._missing("RevisionNotFound" if name in self.hub.commits else "RepoNotFound")
        elif as_tree:
            self._answer(200, [_entry(path, content) for path, content in found[1].items()])
        else:
            info = {"id": name, "modelId": name, "sha": found[0], "private": False, "tags": [], "downloads": 0, "likes": 0}
            self._answer(200, {**info, "siblings": [{"rfilename": path} for path in found[1]]})

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        (_, oid) = self._parts()
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.uploads[oid] = content
        self._answer(200)

    def do_POST(self) -> None:
        parts = self._parts()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer good-token":
            return self._answer(401, {"error": "Invalid token"})
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.hub.commit(name, {".gitattributes": b""})
            self.hub.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
            return self._answer(200, {"url": f"{self.hub.url}/{name}"})
        if parts[-2:] == ["objects", "batch"]:
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/upload/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer(200, {"transfer": "basic", "objects": objects})
        if parts == ["api", "validate-yaml"]:
            return self._answer(200, {"errors": [], "warnings": []})
        name, verb = "/".join(parts[2:4]), parts[4]
        if verb == "preupload":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": _entry(file["path"], self.hub.commits[name][-1][1].get(file["path"])).get("oid"),
                }
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": modes})
        return self._commit(name, [json.loads(line) for line in body.splitlines()])

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files: dict[str, bytes] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, self.hub.commits[name][-1][0]):
                return self._answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        sha = self.hub.commit(name, files)
        return self._answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})


def _entry(path: str, content: bytes | None) -> dict[str, Any]:
    if content is None:
        return {}
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    if path.endswith(".safetensors"):
        sha256 = hashlib.sha256(content).hexdigest()
        return {**entry, "oid": sha256, "lfs": {"oid": sha256, "size": len(content), "pointerSize": 1}}
    return {**entry, "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
