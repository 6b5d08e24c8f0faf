"""From picture files to attention.json, on the shipped tiny model."""

from dataclasses import replace

import pytest
from PIL import Image

from src.datamodule.caption_table import CaptionedImage
from src.models.vit_gpt2 import VitGpt2
from src.report.attention import read_attention
from src.report.cross_attention_maps import write_cross_attention_maps


@pytest.fixture(scope="module")
def model(root):
    return VitGpt2(str(root / "src" / "demo" / "vit_gpt2_tiny"))


@pytest.fixture
def images(tmp_path):
    found = []
    for number in range(10):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (60 + number, 40), (25 * number, 120, 60)).save(path)
        found.append(CaptionedImage(path.name, str(path), ("A dog .",), path.name))
    return found


def test_each_caption_has_a_map_per_word(model, images, tmp_path):
    captions = {image.image_id: "A small red house is on the left." for image in images}
    assert write_cross_attention_maps(model, images, captions, tmp_path / "attention.json") == 10
    maps = read_attention(tmp_path / "attention.json")
    assert set(maps) == set(captions)
    for entry in maps.values():
        assert " ".join(entry["words"]) == "A small red house is on the left."
        assert (entry["height"], entry["width"]) == (8, 8)
        assert entry["region"] == [0, 0, 1, 1]
    assert maps["0.png"]["heat"] != maps["9.png"]["heat"]


def test_the_sample_is_bounded_and_the_same_each_time(model, images, tmp_path):
    captions = {image.image_id: "A dog." for image in images[1:]}
    for name in ("a.json", "b.json"):
        assert write_cross_attention_maps(model, images, captions, tmp_path / name, most=3) == 3
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert "0.png" not in read_attention(tmp_path / "a.json")


def test_pictures_that_cannot_be_read_are_left_out(model, images, tmp_path):
    gone = [replace(image, path="/nowhere/at/all.png") for image in images[:9]]
    captions = {image.image_id: "A dog." for image in images}
    assert write_cross_attention_maps(model, [*gone, images[9]], captions, tmp_path / "a.json") == 1
    assert list(read_attention(tmp_path / "a.json")) == ["9.png"]


def test_an_encoder_without_a_grid_leaves_no_file(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr("src.report.cross_attention_maps.word_attention", lambda *_: None)
    assert write_cross_attention_maps(model, images, {images[0].image_id: "A dog."}, tmp_path / "a.json") == 0
    assert not (tmp_path / "a.json").exists()
