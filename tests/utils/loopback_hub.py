"""A hub of models on loopback: what `HF_ENDPOINT` needs in order to download a folder."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/(?:revision|tree)/(?P<revision>[^/?]+))?(?P<name>)")


class LoopbackHub:
    """Folders served as `{repo: {revision: folder}}`.

    requests: "GET /path" of each request. cut: names of files whose download breaks off in the middle.
    """

    def __init__(self, repos: dict[str, dict[str, Path]]) -> None:
        self.repos, self.requests, self.cut = repos, [], set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                status, headers, content = hub.respond(self.path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.close_connection = Path(self.path).name in hub.cut
                    self.wfile.write(content[: len(content) // 2] if self.close_connection else content)

            do_HEAD = do_GET

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

    def respond(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and content."""
        found = RESOLVE.fullmatch(path) or API.match(path)
        if found is None or found["repo"] not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        revisions, wanted = self.repos[found["repo"]], found["revision"] or "main"
        revision = next((name for name in revisions if wanted in (name, commit(name))), None)
        if revision is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        folder, headers = revisions[revision], {"X-Repo-Commit": commit(revision)}
        if found["name"]:
            file = folder / found["name"]
            if not file.is_file():
                return 404, {"X-Error-Code": "EntryNotFound", **headers}, b""
            return 200, {"ETag": f'"{digest(file)}"', **headers}, file.read_bytes()
        files = [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": digest(file)}
            for file in sorted(folder.iterdir())
        ]
        siblings = [{"rfilename": file["path"]} for file in files]
        model = {"id": found["repo"], "sha": commit(revision), "siblings": siblings}
        return (
            200,
            {"Content-Type": "application/json"},
            json.dumps(files if "/tree/" in path else model).encode(),
        )


def commit(revision: str) -> str:
    """Return the commit that a branch stands for."""
    return hashlib.sha1(revision.encode()).hexdigest()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
