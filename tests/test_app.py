"""The page: uploads are captioned, limited, served to nobody and removed."""

import base64
import importlib.util
import socket
import tempfile
from pathlib import Path

import pytest
import torch

pytest.importorskip("gradio")

import httpx
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from src.app import LONGEST_SIDE, build_page, launch, limit_uploads, main, respond
from src.captioner import Captioner
from src.models.attention_maps import WordAttention
from src.models.generation import Hypothesis
from src.report.run_files import RunFiles, read_run
from src.utils.errors import UserError
from tests.browser import PHONE, browser, console_errors, look, sideways_scroll  # noqa: F401
from tests.report.fake_run import make_run

HOST = "127.0.0.1"
HOSTILE = "<script>window.hacked=1</script> <img src=x onerror=window.hacked=2> {{value}} ${1+1}"
CAPTIONS = ("a dog on the beach", HOSTILE, "two dogs")
FROM_GRADIO = ('"Method not implemented."', "/gradio_api/upload", "Response")  # messages of its own script


class FakeCaptioner:
    """Generate the same captions for every image, each word attending to another patch."""

    generation, device, dtype = {"num_beams": 3}, "cpu", torch.float32

    def nbest(self, image):
        return [Hypothesis(caption, -0.5 - index) for index, caption in enumerate(CAPTIONS)]

    def attention(self, image, captions):
        return [WordAttention(text.split(), torch.eye(16)[: len(text.split())].view(-1, 4, 4)) for text in captions]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address and upload folder of a page that this process serves."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")  # restored after the tests
        run = read_run(make_run(tmp_path_factory.mktemp("runs") / "<b>mine<", count=4))
        page = build_page(FakeCaptioner(), run, folder)
        yield launch(page, HOST, 0, folder), folder
        page.close(verbose=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "dog.png"
    Image.linear_gradient("L").resize((300, 200)).convert("RGB").save(path)
    return path


def test_mistakes_a_missing_gradio_and_a_taken_port_are_named(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"checkpoint='/no/where.ckpt' does not exist"):
        main(["checkpoint=/no/where.ckpt"])
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    page = build_page(FakeCaptioner(), RunFiles(tmp_path), tmp_path)
    with socket.create_server((HOST, 0)) as other:
        for port in (other.getsockname()[1], 70_000):
            with pytest.raises(UserError, match=rf"host='127\.0\.0\.1' port={port} cannot be used"):
                launch(page, HOST, port, tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"gradio is not installed.*make setup EXTRAS=app"):
        main(["checkpoint=x"])


def test_the_sum_of_uploads_is_limited(tmp_path):
    async def page(scope, receive, send):
        await PlainTextResponse("page")(scope, receive, send)

    client = TestClient(limit_uploads(page, tmp_path, max_total=1_000_000))

    def status(length: int, path: str = "/gradio_api/upload") -> int:
        return client.post(path, content=bytes(length)).status_code

    (tmp_path / "a.jpg").write_bytes(bytes(900_000))
    assert [status(90_000), status(110_000)] == [200, 413]
    assert client.post("/gradio_api/upload", content=iter([b"of unknown length"])).status_code == 413
    assert [status(60_000, "/gradio_api/queue/join"), status(90_000, "/gradio_api/queue/join")] == [200, 413]
    (tmp_path / "a.jpg").unlink()
    assert status(110_000) == 200


def test_captions_and_attention_maps_of_an_upload(tiny_checkpoint, image):
    captioner = Captioner.from_checkpoint(tiny_checkpoint, num_beams=3, max_length=8, precision="32")
    found = respond(captioner, image)
    nats = [hypothesis["nats"] for hypothesis in found["hypotheses"]]
    assert found["name"] == "dog.png"
    assert nats == sorted(nats)
    for hypothesis in found["hypotheses"]:
        assert " ".join(hypothesis["map"]["words"]) == hypothesis["caption"]
        assert len(hypothesis["map"]["heat"]) == len(hypothesis["map"]["words"])
    assert (found["image"]["width"], found["image"]["height"]) == (300, 200)


def test_unreadable_and_large_uploads_are_one_line(tmp_path):
    Image.new("RGB", (3 * LONGEST_SIDE, 3)).save(tmp_path / "wide.png")
    shown = respond(FakeCaptioner(), tmp_path / "wide.png")["image"]
    assert (shown["width"], shown["height"]) == (LONGEST_SIDE, 1)
    Image.new("1", (10000, 5001)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("<svg onload=alert(1)>")
    large, text = (respond(FakeCaptioner(), tmp_path / name) for name in ("large.png", "text.png"))
    assert list(large) == list(text) == ["error"]
    assert "10,000 x 5,001 pixels; expected at most 50,000,000" in large["error"]
    assert "text.png: not " in text["error"]


def test_files_that_were_not_uploaded_are_out_of_reach(served, tmp_path):
    (tmp_path / "secret.png").write_text("secret")
    address, folder = served
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        for path in (tmp_path / "secret.png", folder / ".." / tmp_path.name / "secret.png"):
            payload = {"data": [{"path": str(path), "meta": {"_type": "gradio.FileData"}}]}
            event = client.post("/gradio_api/call/caption", json=payload).json()["event_id"]
            assert "event: error" in client.get(f"/gradio_api/call/caption/{event}").text
            assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
        assert client.post("/gradio_api/upload", files={"files": ("a.png", bytes(21 * 2**20))}).status_code == 413
    assert not list(folder.rglob("secret*"))


@pytest.mark.slow
def test_the_command_serves_and_removes_the_uploads_at_its_end(monkeypatch, tmp_path, capsys):
    def visit(page):
        content = httpx.get(page.local_url, timeout=60, trust_env=False).text
        for text in ("run", "SyntheticFlickr, night-1600", "on 4 test images", "3 beams"):
            assert text in content
        assert "anna" not in content
        (folder,) = tmp_path.glob("captioner-uploads-*")
        assert folder.stat().st_mode & 0o077 == 0
        page.close(verbose=False)

    monkeypatch.setattr("gradio.Blocks.block_thread", visit)
    monkeypatch.setattr(Captioner, "from_checkpoint", lambda **_: FakeCaptioner())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # restored after the test
    run = make_run(tmp_path / "anna" / "run", count=4)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").touch()
    assert main([f"checkpoint={run}", "port=0"]) == 130
    assert not list(tmp_path.glob("captioner-uploads-*"))
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")


def wait(page, selector):
    return WebDriverWait(page, 60, 0.1).until(lambda page: page.find_elements(By.CSS_SELECTOR, selector))[0]


def upload(page, address, path, *size):
    look(page, address, *size)
    wait(page, ".result .empty")
    wait(page, "#upload input[type=file]").send_keys(str(path))


def texts(page, selector) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)"
    return page.execute_script(script, selector)


@pytest.mark.chromium
def test_an_upload_shows_captions_and_attention_maps_in_a_browser(browser, served, image):  # noqa: F811
    upload(browser, served[0], image, PHONE)
    wait(browser, ".result .card")
    assert sideways_scroll(browser) == 0
    about = browser.find_element(By.ID, "about").text
    assert about.startswith("<b>mine<\nSyntheticFlickr, night-1600 · CIDEr-D 2.512 (2.336 – 2.663) on 4 test images")
    assert texts(browser, ".result .word") == CAPTIONS[0].split()
    assert texts(browser, ".hypothesis .text") == list(CAPTIONS)
    assert texts(browser, ".hypothesis .score") == ["61%", "22%", "8%"]
    word = browser.find_elements(By.CSS_SELECTOR, ".result .word")[1]
    ActionChains(browser).move_to_element(word).perform()
    assert browser.find_element(By.CSS_SELECTOR, ".result canvas").get_attribute("class") == "on"
    second = browser.find_elements(By.CSS_SELECTOR, ".hypothesis")[1]
    browser.execute_script("arguments[0].click()", second)
    assert texts(browser, ".result .word") == HOSTILE.split()
    assert texts(browser, ".copy") == ["Copy"]
    assert browser.execute_script("return window.hacked") is None
    assert [line for line in console_errors(browser) if not any(known in line for known in FROM_GRADIO)] == []
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    fetched = [url for url in browser.execute_script(script) if url.startswith("http")]
    assert [url for url in fetched if not url.startswith(served[0])] == []


@pytest.mark.chromium
@pytest.mark.slow
def test_an_unreadable_or_pasted_image_in_a_browser(browser, served, image, tmp_path):  # noqa: F811
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:120])
    upload(browser, served[0], tmp_path / "cut.png")
    assert wait(browser, ".result .problem").text.startswith("cut.png: ")
    script = """const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
        document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }))"""
    wait(browser, "#upload input[type=file]")
    browser.execute_script(script, base64.b64encode(image.read_bytes()).decode())
    wait(browser, ".result .card")
    assert "pasted.png" in texts(browser, ".result > .hint")[-1]
    browser.find_elements(By.CSS_SELECTOR, ".sample")[2].click()
    WebDriverWait(browser, 60, 0.1).until(lambda page: "Sample 3.jpg" in texts(page, ".result > .hint")[-1])
