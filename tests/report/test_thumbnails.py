"""Pictures inside the report: small, whole, or honestly absent."""

import base64
import io

import pytest
import torch
from PIL import Image

from src.report.run_files import Prediction
from src.report.thumbnails import LONGEST_SIDE, MOST_BYTES, shrink, thumbnail


def row(path, box=None) -> Prediction:
    return Prediction("a", str(path), "a dog", None, (), "", box, {})


def opened(found) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(found.uri.partition("base64,")[2])))


def test_a_large_picture_is_scaled_and_its_shape_kept(tmp_path):
    Image.new("RGB", (1000, 500), "red").save(tmp_path / "a.png")
    found = thumbnail(row(tmp_path / "a.png"))
    assert (found.width, found.height) == (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert opened(found).size == (found.width, found.height)
    assert opened(found).format == "JPEG"


def test_a_small_picture_stays_as_large_as_it_is(tmp_path):
    Image.new("L", (20, 10), 128).save(tmp_path / "a.png")
    assert thumbnail(row(tmp_path / "a.png")).width == 20


def test_a_busy_picture_stays_under_the_limit(tmp_path):
    Image.effect_noise((800, 800), 120).convert("RGB").save(tmp_path / "a.png")
    found = thumbnail(row(tmp_path / "a.png"))
    assert len(base64.b64decode(found.uri.partition("base64,")[2])) <= MOST_BYTES


def test_pixels_are_shrunk_to_any_size():
    found = shrink(torch.zeros(3, 100, 300, dtype=torch.uint8), longest_side=60)
    assert (found.width, found.height) == (60, 20)
    assert opened(found).size == (60, 20)


def test_a_part_of_a_picture_is_cut_out(tmp_path):
    image = Image.new("RGB", (100, 100), "red")
    image.paste("blue", (50, 0, 100, 100))
    image.save(tmp_path / "a.png")
    found = thumbnail(row(tmp_path / "a.png", (60, 10, 90, 30)))
    assert (found.width, found.height) == (30, 20)
    red, _, blue = opened(found).getpixel((15, 10))
    assert blue > 200 > 50 > red


@pytest.mark.parametrize("name", ["absent.jpg", "text.jpg", "", "nul\x00.jpg", "x" * 5000])
def test_what_cannot_be_read_is_none(tmp_path, name):
    (tmp_path / "text.jpg").write_text("no picture")
    assert thumbnail(row(tmp_path / name if name else "")) is None
