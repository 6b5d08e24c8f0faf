"""Who may ask the page for what."""

import asyncio

import pytest

from src.app.serving import HEADERS, OTHER_BYTES, Guard, is_loopback, open_socket

LOCAL = {"host": "127.0.0.1:7860"}
LENGTH = {"content-length": "10"}


@pytest.fixture
def guard() -> Guard:
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b"the page"})

    return Guard(app, "/tmp/uploads/", max_bytes=1000, local=True)


def status(guard, method, path, **headers) -> int:
    return guard.refusal(method, path, LOCAL | {name.replace("_", "-"): v for name, v in headers.items()})[0]


@pytest.mark.parametrize(
    "path",
    [
        "/", "/config", "/assets/index.js", "/static/img/logo.svg", "/gradio_api/queue/data",
        "/gradio_api/heartbeat/abc", "/gradio_api/file=/tmp/uploads/ab/dog.jpg",
    ],
)  # fmt: skip
def test_what_the_page_reads_is_open(guard, path):
    assert status(guard, "GET", path) == 0


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd", "/gradio_api/file=/tmp/uploads/../x", "/gradio_api/file=/tmp/uploads2/x",
        "/gradio_api/file=http://example.com/", "/gradio_api/proxy=http://example.com/", "/gradio_api/runs",
        "/monitoring", "/gradio_api/openapi.json", "/gradio_api/vibe-code/", "/gradio_api/deep_link",
        "/assets/../../secret", "/docs", "/gradio_api/file/etc/passwd", "/gradio_api/upload",
    ],
)  # fmt: skip
def test_every_other_door_is_shut(guard, path):
    assert status(guard, "GET", path) == 404


@pytest.mark.parametrize("path", ["/gradio_api/process_recording", "/gradio_api/run/predict", "/", "/login"])
def test_nothing_else_is_written(guard, path):
    assert status(guard, "POST", path, **LENGTH) == 404
    assert status(guard, "DELETE", "/gradio_api/upload") == 404


def test_a_body_has_a_length_within_the_limit(guard):
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        assert status(guard, "POST", path, content_length=str(1000 + OTHER_BYTES)) == 0
        assert status(guard, "POST", path, content_length=str(1001 + OTHER_BYTES)) == 413
        assert status(guard, "POST", path) == 411
        assert status(guard, "POST", path, content_length="-1") == 411


def test_foreign_pages_are_refused(guard):
    upload = {"content_length": "10"}
    assert status(guard, "POST", "/gradio_api/upload", origin="http://127.0.0.1:7860", **upload) == 0
    for origin in ("http://evil.example", "null", "http://127.0.0.1:80", ""):
        assert status(guard, "POST", "/gradio_api/upload", origin=origin, **upload) == 403


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:7860", 0), ("127.0.0.1", 0), ("[::1]:7860", 0), ("[::1]", 0), ("evil.example:7860", 421),
        ("", 421), ("localhost.evil.example", 421),
    ],
)  # fmt: skip
def test_a_local_page_has_local_names(guard, host, expected):
    assert status(guard, "GET", "/", host=host) == expected
    guard.local = False
    assert status(guard, "GET", "/", host=host) == 0


def ask(guard, scope) -> list[dict]:
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, None, send))
    return sent


@pytest.mark.parametrize(("path", "code"), [("/", 200), ("/docs", 404)])
def test_every_answer_carries_the_policy(guard, path, code):
    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")]}
    start, body = ask(guard, scope)
    assert start["status"] == code
    assert set(HEADERS) <= set(start["headers"])
    assert body["body"] == (b"the page" if code == 200 else b"not part of this page")


def test_there_are_no_web_sockets(guard):
    assert ask(guard, {"type": "websocket", "path": "/"}) == [{"type": "websocket.close", "code": 1008}]


def test_addresses_of_this_machine_alone():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "fe80::1%eth0")] == [True] * 3 + [
        False
    ]
    assert not is_loopback("0.0.0.0")
    with open_socket("localhost", 0) as listening:
        assert is_loopback(listening.getsockname()[0])
        assert listening.getsockname()[1] > 0
