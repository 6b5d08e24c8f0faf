"""What the page is told of an uploaded file."""

import base64
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from src.app.answers import LONGEST_SIDE, Limits, answer
from src.captioner import Captioner

LIMITS = Limits(max_bytes=2**20, max_pixels=10_000)


@pytest.fixture(scope="module")
def captioner(tiny_checkpoint) -> Captioner:
    return Captioner.from_checkpoint(tiny_checkpoint, num_beams=3, max_length=8, precision="32")


@pytest.fixture
def upload(flickr_folder, tmp_path) -> Path:
    return Path(shutil.copy(sorted((flickr_folder / "Images").iterdir())[0], tmp_path / "upload"))


def test_caption_alternatives_and_maps(captioner, upload):
    found = answer(captioner, upload, "dog.jpg", LIMITS)
    assert found["alternatives"][0]["caption"] == captioner.caption(upload)[0].replace("\x00", "\ufffd")
    assert [a["nats"] for a in found["alternatives"]] == sorted(a["nats"] for a in found["alternatives"])
    assert all(a["nats"] > 0 for a in found["alternatives"])
    for alternative in found["alternatives"]:
        assert " ".join(alternative["map"]["words"]) == alternative["caption"]
        assert len(alternative["map"]["heat"]) == len(alternative["map"]["words"])
    assert found["name"] == "dog.jpg"
    data = base64.b64decode(found["picture"]["uri"].partition("base64,")[2])
    assert Image.open(io.BytesIO(data)).size == (found["picture"]["width"], found["picture"]["height"])


def test_a_model_without_maps_and_a_picture_too_wide_to_show(captioner, tmp_path, monkeypatch):
    monkeypatch.setattr(Captioner, "attention", lambda *_: None)
    Image.new("RGB", (3 * LONGEST_SIDE, 3)).save(tmp_path / "a.png")
    found = answer(captioner, tmp_path / "a.png", "a.png", LIMITS)
    assert [alternative["map"] for alternative in found["alternatives"]] == [None] * len(
        found["alternatives"]
    )
    assert (found["picture"]["width"], found["picture"]["height"]) == (LONGEST_SIDE, 1)


def refused(captioner, path, name="dog.jpg") -> str:
    found = answer(captioner, path, name, LIMITS)
    assert list(found) == ["error"]
    assert len(found["error"].splitlines()) == 1
    return found["error"]


def test_what_cannot_be_used_is_one_line_that_names_the_visitors_file(captioner, upload, tmp_path):
    whole = upload.read_bytes()
    upload.write_bytes(whole[:200])
    assert refused(captioner, upload).startswith("dog.jpg: ")
    upload.write_bytes(b"")
    assert "expected a whole JPEG, PNG" in refused(captioner, upload)
    upload.write_text("<svg onload=alert(1)>")
    assert "not an image of a known format" in refused(captioner, upload)
    upload.write_bytes(whole + bytes(2**20))
    assert f"expected at most {2**20:,}" in refused(captioner, upload)
    Image.new("L", (101, 100)).save(upload, "PNG")
    assert "101 x 100 pixels; expected at most 10,000 in all; scale the image down" in refused(
        captioner, upload
    )
    assert refused(captioner, upload, "\x1b[2J" + "x" * 500 + "\n.jpg").startswith("x" * 75)
