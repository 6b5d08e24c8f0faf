"""The page as a server, asked without a browser."""

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from starlette.testclient import TestClient

from src.app import page
from src.app.answers import Limits
from src.captioner import Captioner
from src.utils.errors import UserError

SETTINGS = {"checkpoint": "", "base": "", "max_length": 6, "num_beams": 2, "device": "cpu", "precision": "32"}


@pytest.fixture
def client(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(page, "KEPT_SECONDS", 1)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back behind the test
    captioner = Captioner.from_checkpoint(tiny_checkpoint, max_length=6, num_beams=2, precision="32")
    with (
        page.open_page(captioner, "<b>mine</b>", Limits(2000, 1000)) as guard,
        TestClient(guard, base_url="http://127.0.0.1") as client,
    ):
        yield client


def send(client, data: bytes):
    return client.post("/gradio_api/upload", files={"files": ("a.png", data)})


def said(client, path: str, **more: object) -> dict:
    """What the queue tells of a picture at a path of the server."""
    config = client.get("/config").json()
    upload = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}, **more}
    asked = {"data": [upload], "fn_index": config["dependencies"][0]["id"], "session_hash": "s"}
    assert client.post("/gradio_api/queue/join", json=asked).status_code == 200
    for line in client.get("/gradio_api/queue/data", params={"session_hash": "s"}).text.splitlines():
        if "process_completed" in line:
            return json.loads(line.removeprefix("data:"))
    raise AssertionError("no answer")


@pytest.mark.parametrize("more", [{}, {"is_stream": True}, {"url": "data:image/png;base64,AAAA"}])
def test_files_that_were_not_uploaded_are_out_of_reach(client, tmp_path, more):
    (tmp_path / "secret.png").write_text("secret")
    uploads = Path(page.os.environ["GRADIO_TEMP_DIR"])
    for path in (tmp_path / "secret.png", uploads / ".." / tmp_path.name):
        told = said(client, str(path), **more)
        assert told["success"] is False
        assert list(uploads.rglob("*.png")) == []
    assert client.get(f"/gradio_api/file={tmp_path / 'secret.png'}").status_code == 404


def test_no_address_is_fetched_for_a_visitor(client, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "gradio.processing_utils.async_ssrf_protected_download", lambda *a, **k: asked.append(a)
    )
    for more in ({}, {"is_stream": True}):
        assert said(client, "http://93.184.216.34/a.png", **more)["success"] is False
    assert asked == []


def test_an_uploaded_file_is_answered_and_soon_gone(client):
    (path,) = send(client, b"no picture").json()
    told = said(client, path)["output"]["data"]
    assert told[0] is None
    assert "a.png: not an image of a known format" in told[1]["error"]
    deadline = time.monotonic() + 30
    while Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not Path(path).exists()


def test_a_file_over_the_limit_is_not_kept(client):
    assert send(client, bytes(2001)).status_code == 413
    assert send(client, bytes(200_000)).status_code == 413
    assert send(client, bytes(1900)).status_code == 200


def test_the_page_names_nobody_to_ask(client):
    """No share link, no analytics, no fonts from elsewhere; what it says of itself is text."""
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False
    assert not config.get("mcp_server")
    assert "&lt;b&gt;mine&lt;/b&gt;" in json.dumps(config)
    assert "http" not in client.get("/theme.css").text.replace("http://www.w3.org", "")


def test_the_captioner_is_told_in_a_line(tiny_checkpoint, monkeypatch):
    captioner, about = page.load(SETTINGS | {"checkpoint": str(tiny_checkpoint)})
    assert (captioner.num_beams, captioner.max_length) == (2, 6)
    assert about == f"{tiny_checkpoint.name} · vit + gpt2 · 2 beams · cpu, float32"
    monkeypatch.chdir(tiny_checkpoint.parent.parent)
    assert page.short(str(tiny_checkpoint)) == f"{tiny_checkpoint.parent.name}/{tiny_checkpoint.name}"
    assert page.short("someone/captioner") == "someone/captioner"
    with pytest.raises(UserError, match=r"checkpoint='gone\.ckpt' does not exist"):
        page.load(SETTINGS | {"checkpoint": "gone.ckpt"})


def test_nothing_chosen_is_nothing_said():
    assert page.Door(Path("/uploads")).hand_on(None) is None
