"""Where the page listens, and who may ask it for what.

Gradio has many doors that this page does not use, one of which fetches any address for whoever asks. Only those
that the page needs are open here, for requests that come from the page itself, and under a policy by which the
browser asks nobody else.
"""

import ipaddress
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from src.utils.errors import UserError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
READABLE = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/gradio_api/info")
READABLE_UNDER = (
    "/assets/", "/static/", "/gradio_api/heartbeat/", "/gradio_api/queue/data", "/gradio_api/upload_progress",
)  # fmt: skip
WRITABLE = ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")
FILES = "/gradio_api/file="
OTHER_BYTES = 2**16  # of a request besides the uploaded file
# Gradio's own script makes functions of text and styles of its own, hence 'unsafe-...'; nothing comes from outside.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "frame-src 'none'; frame-ancestors 'none'; base-uri 'self'; form-action 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one.

    Raises:
        UserError: the port is taken, not allowed or no port, or the host is no address of this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port={port}; expected 0 to 65535; set port=7860")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _no_place(host, port, error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise _no_place(host, port, error) from error
    return listening


def _no_place(host: str, port: int, error: Exception) -> UserError:
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    return UserError(
        f"host={host!r} port={port} cannot be listened at ({reason}); expected an address of this machine and a "
        "free port; set port=<another>, or port=0 for any"
    )


def is_loopback(host: str) -> bool:
    """Whether an address, as a socket has it, is this machine's alone."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def serve(app: App, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, which ends as it would without a server (KeyboardInterrupt for SIGINT)."""
    import uvicorn

    logging.getLogger("uvicorn.error").addFilter(lambda record: not str(record.msg).startswith("Cancel "))
    # Waits for nobody: a page that is open keeps a connection as long as it lives, and is told so on each.
    settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=0)
    uvicorn.Server(settings).run(sockets=[listening])


class Guard:
    """An ASGI app that hands on to `app` what the page needs, and refuses the rest.

    uploads: the folder of uploaded files, the only ones that are served. max_bytes: of an uploaded file.
    local: the socket is this machine's alone, so that a request under another name is one that a foreign page
    had its name server send here.
    """

    def __init__(self, app: App, uploads: str, max_bytes: int, local: bool) -> None:
        self.app, self.uploads, self.local = app, uploads.rstrip("/"), local
        self.max_body = max_bytes + OTHER_BYTES

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # no web sockets: the page has none
            return await send({"type": "websocket.close", "code": 1008})
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status, reason = self.refusal(scope["method"], scope["path"], headers)
        if status:
            start = [*HEADERS, (b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": status, "headers": start})
            return await send({"type": "http.response.body", "body": reason.encode()})

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """HTTP status and reason, (0, "") for what may pass; names of headers are in lower case."""
        host = headers.get("host", "")
        if self.local and re.sub(r":\d+$", "", host) not in LOOPBACK_NAMES:
            return 421, "this page answers to localhost alone"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "requests of other pages are refused"
        if not self.is_open(method, path):
            return 404, "not part of this page"
        if method == "POST":
            length = headers.get("content-length", "")
            if not length.isdecimal():
                return 411, "a length is needed"
            if int(length) > self.max_body:
                return 413, "the file is too large"
        return 0, ""

    def is_open(self, method: str, path: str) -> bool:
        """Whether the page itself asks for that."""
        if ".." in path.split("/"):
            return False
        if method in ("GET", "HEAD"):
            ours = path.startswith(f"{FILES}{self.uploads}/")
            return path in READABLE or path.startswith(READABLE_UNDER) or ours
        return method == "POST" and path in WRITABLE
