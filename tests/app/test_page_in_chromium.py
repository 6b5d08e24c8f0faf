"""The page in a real browser: a picture in, a caption, alternatives and word maps out, and nothing to elsewhere."""

import base64
import json
import struct
import threading
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio")

import torch
import uvicorn
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from src.app.answers import Limits
from src.app.page import open_page
from src.app.serving import open_socket
from src.models.attention_maps import WordAttention
from src.models.generation import Hypothesis
from tests.browser import PHONE, browser, console_errors, look, sideways_scroll  # noqa: F401

pytestmark = pytest.mark.chromium
HOSTILE = "<script>window.hacked=1</script> <img src=x onerror=window.hacked=2> {{value}} ${1+1}"
CAPTIONS = ("a dog on the beach", HOSTILE, "two dogs")
LIMITS = Limits(max_bytes=300_000, max_pixels=1_000_000)
# Gradio's own script says so in closing a stream, and tells of an upload that was refused.
OF_GRADIO = ('"Method not implemented."', "/gradio_api/upload", "Response")


class Parrot:
    """Says the same of every picture, and looked at another patch at each word."""

    def nbest(self, picture):
        return [Hypothesis(caption, -0.5 - place) for place, caption in enumerate(CAPTIONS)]

    def attention(self, picture, captions):
        return [
            WordAttention(words, torch.eye(16)[: len(words)].view(-1, 4, 4))
            for words in (caption.split() for caption in captions)
        ]


@pytest.fixture(scope="module")
def address():
    """A page that is served from a thread of this process."""
    with pytest.MonkeyPatch.context() as patch, open_socket("127.0.0.1", 0) as listening:
        patch.setenv("GRADIO_TEMP_DIR", "")  # put back behind the tests
        with open_page(Parrot(), "a parrot", LIMITS) as page:
            server = uvicorn.Server(uvicorn.Config(page, log_level="error", timeout_graceful_shutdown=0))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
            server.should_exit = True
            thread.join(timeout=30)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "dog.png"
    Image.linear_gradient("L").resize((300, 200)).convert("RGB").save(path)
    return path


def wait(page, selector):
    return WebDriverWait(page, 60, 0.1).until(lambda page: page.find_elements(By.CSS_SELECTOR, selector))[0]


def opened(page, address, *size, **how):
    look(page, address, *size, **how)
    wait(page, ".answer .empty")
    return page


def upload(page, path):
    wait(page, "#place input[type=file]").send_keys(str(path))


@pytest.fixture
def answered(browser, address, photo):  # noqa: F811
    page = opened(browser, address)
    upload(page, photo)
    wait(page, ".answer .card")
    return page


def texts(page, selector) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)"
    return page.execute_script(script, selector)


def painted(page) -> bytes:
    script = "return document.querySelector('.answer canvas').toDataURL()"
    return base64.b64decode(page.execute_script(script).partition(",")[2])


def requests(page) -> list[str]:
    """Every address that the browser asked since `look`."""
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def complaints(page) -> list[str]:
    return [line for line in console_errors(page) if not any(known in line for known in OF_GRADIO)]


def test_a_picture_gets_its_caption_alternatives_and_maps(answered, address):
    assert texts(answered, ".answer .word") == CAPTIONS[0].split()
    assert texts(answered, ".alternative .text") == list(CAPTIONS)
    assert texts(answered, ".alternative .score") == ["0.50", "1.50", "2.50"]
    assert "dog.png" in texts(answered, ".answer > .hint")[-1]
    wait(answered, "#place input[type=file]")  # free for the next picture
    assert complaints(answered) == []
    asked = [urlsplit(url) for url in requests(answered) if url.startswith(("http", "ws"))]
    assert len(asked) > 10
    assert {url.netloc for url in asked} == {urlsplit(address).netloc}


def test_a_word_under_the_mouse_shows_where_the_model_looked(answered):
    words = answered.find_elements(By.CSS_SELECTOR, ".answer .word")
    canvas = answered.find_element(By.CSS_SELECTOR, ".answer canvas")
    assert "on" not in (canvas.get_attribute("class") or "")
    ActionChains(answered).move_to_element(words[1]).perform()
    assert canvas.get_attribute("class") == "on"
    first = painted(answered)
    ActionChains(answered).move_to_element(words[2]).perform()
    assert painted(answered) != first


def test_an_alternative_can_be_looked_at_and_markup_stays_text(answered):
    rows = answered.find_elements(By.CSS_SELECTOR, ".alternative")
    rows[1].click()
    assert texts(answered, ".answer .word") == HOSTILE.split()
    assert [row.get_attribute("aria-pressed") for row in rows] == ["false", "true", "false"]
    assert texts(answered, ".alternative .text")[1] == HOSTILE
    assert answered.execute_script("return window.hacked") is None
    rows[2].click()
    assert texts(answered, ".answer .word") == ["two", "dogs"]


def bomb(path: Path) -> Path:
    """A PNG of a few bytes that claims to be 30,000 x 30,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, data)
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def test_a_picture_that_cannot_be_used_is_told_in_a_line(browser, address, photo, tmp_path):  # noqa: F811
    page = opened(browser, address)
    upload(page, bomb(tmp_path / "<i>bomb.png"))
    told = wait(page, ".answer .problem").text
    assert told == (
        "<i>bomb.png: 30,000 x 30,000 pixels; expected at most 1,000,000 in all; scale the picture down or remove it"
    )
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:120])
    upload(page, tmp_path / "cut.png")
    WebDriverWait(page, 60).until(lambda page: texts(page, ".answer .problem")[:1] != [told])
    assert texts(page, ".answer .problem")[0].startswith("cut.png: ")
    upload(page, photo)
    wait(page, ".answer .card")
    assert complaints(page) == []


def test_a_file_over_the_limit_is_refused_on_the_page(browser, address, tmp_path):  # noqa: F811
    page = opened(browser, address)
    (tmp_path / "large.png").write_bytes(bytes(LIMITS.max_bytes + 1))
    upload(page, tmp_path / "large.png")
    told = WebDriverWait(page, 60).until(lambda page: texts(page, ".toast-body"))[0]
    assert "exceed the maximum allowed size" in told
    assert "large.png" in told
    assert texts(page, ".answer .empty") == ["The caption will stand here."]


def test_a_pasted_picture_goes_the_same_way(browser, address, photo):  # noqa: F811
    page = opened(browser, address)
    wait(page, "#place input[type=file]")
    script = """const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
        document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }))"""
    page.execute_script(script, base64.b64encode(photo.read_bytes()).decode())
    wait(page, ".answer .card")
    time.sleep(0.3)
    assert sum("/queue/join" in url for url in requests(page)) == 1  # captioned once
    assert "pasted.png" in texts(page, ".answer > .hint")[-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(browser, address, photo, scheme):  # noqa: F811
    page = opened(browser, address, PHONE, scheme=scheme, touch=True)
    upload(page, photo)
    wait(page, ".answer .card")
    assert sideways_scroll(page) == 0
    top = page.execute_script("return document.querySelector('.answer').getBoundingClientRect().top")
    assert top < PHONE[1] / 2  # the answer is on the screen
