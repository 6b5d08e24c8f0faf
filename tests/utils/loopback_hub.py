"""A hub of models on loopback: what `HF_ENDPOINT` needs in order to download a folder."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/(?:revision|tree)/(?P<revision>[^/?]+))?")


class LoopbackHub:
    """Folders served as `{repo: {revision: folder}}`.

    requests: what was asked for, as "GET /path". cut: names of files whose download breaks off in the middle.
    """

    def __init__(self, repos: dict[str, dict[str, Path]]) -> None:
        self.repos, self.requests, self.cut = repos, [], set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, *args: object) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        self.requests.append(f"{handler.command} {handler.path}")
        found = RESOLVE.fullmatch(handler.path) or API.match(handler.path)
        if found is None or found["repo"] not in self.repos:
            return self.refuse(handler, "RepoNotFound")
        revisions = self.repos[found["repo"]]
        wanted = found["revision"] or "main"
        named = {commit(revision): revision for revision in revisions} | {name: name for name in revisions}
        if wanted not in named:
            return self.refuse(handler, "RevisionNotFound")
        revision = named[wanted]
        if "name" not in found.groupdict():
            return self.tell(handler, found["repo"], revisions[revision], commit(revision))
        file = revisions[revision] / found["name"]
        if not file.is_file():
            return self.refuse(handler, "EntryNotFound", {"X-Repo-Commit": commit(revision)})
        return self.send(handler, file, commit(revision), body)

    def refuse(
        self, handler: BaseHTTPRequestHandler, code: str, headers: dict[str, str] | None = None
    ) -> None:
        handler.send_response(404)
        for name, value in {"X-Error-Code": code, "Content-Length": "0", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()

    def tell(self, handler: BaseHTTPRequestHandler, repo: str, folder: Path, sha: str) -> None:
        """What the API knows of a model, or its files."""
        files = [{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": digest(file)}
                 for file in sorted(folder.iterdir())]  # fmt: skip
        model = {"id": repo, "sha": sha, "siblings": [{"rfilename": file["path"]} for file in files]}
        content = json.dumps(files if "/tree/" in handler.path else model).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def send(self, handler: BaseHTTPRequestHandler, file: Path, sha: str, body: bool) -> None:
        content = file.read_bytes()
        handler.send_response(200)
        headers = {"ETag": f'"{digest(file)}"', "X-Repo-Commit": sha, "Content-Length": str(len(content))}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if body and file.name in self.cut:
            handler.wfile.write(content[: len(content) // 2])
            handler.close_connection = True
        elif body:
            handler.wfile.write(content)


def commit(revision: str) -> str:
    """The commit that a branch stands for."""
    return hashlib.sha1(revision.encode()).hexdigest()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
