"""From image files to attention.json, on the shipped tiny model; and careful reading."""

import base64
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from src.datamodule.caption_table import CaptionedImage
from src.evaluate import write_attention
from src.models.vit_gpt2 import VitGpt2
from src.report.html import choose_images
from src.report.run_files import Prediction, encode_attention, read_attention, read_run
from tests.report.fake_run import word_attention

ENTRY = {
    "image_id": "a", "words": ["x"], "height": 2, "width": 2, "region": [0, 0, 1, 1], "heat": ["AAAAAA=="],
}  # fmt: skip


@pytest.fixture(scope="module")
def model(root):
    return VitGpt2(str(root / "src" / "demo" / "vit_gpt2_tiny"))


@pytest.fixture
def images(tmp_path):
    """Images of equal file names in ten folders: their ids are paths."""
    found = []
    for number in range(10):
        path = tmp_path / str(number) / "1.png"
        path.parent.mkdir()
        Image.new("RGB", (60 + number, 40), (25 * number, 120, 60)).save(path)
        found.append(CaptionedImage(f"{number}/1.png", str(path), ("A dog .",), f"{number}/1.png"))
    return found


def test_each_image_has_a_map_per_word_under_its_own_id(model, images, tmp_path):
    captions = {image.image_id: "A small red house is on the left." for image in images}
    write_attention(model, images, captions, tmp_path / "attention.json", 20)
    maps = read_attention(tmp_path / "attention.json")
    assert set(maps) == set(captions)
    for entry in maps.values():
        assert " ".join(entry["words"]) == "A small red house is on the left."
        assert (entry["height"], entry["width"], entry["region"]) == (8, 8, [0, 0, 1, 1])
    assert maps["0/1.png"]["heat"] != maps["9/1.png"]["heat"]


def test_the_sample_is_bounded_the_same_each_time_and_that_of_the_random_view(model, images, tmp_path):
    captions = {image.image_id: "A dog." for image in images}
    for name in ("a.json", "b.json"):
        write_attention(model, images, captions, tmp_path / name, 4)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    rows = [Prediction(image.image_id, "", "A dog.", None, (), "", None, {}) for image in images]
    ranks, _ = choose_images(rows)
    first = {rows[row].image_id for row in ranks if ranks[row]["random"] < 4}
    assert first == set(read_attention(tmp_path / "a.json"))
    assert len(first) == 4


def test_unreadable_images_are_skipped_and_without_a_grid_there_is_no_file(model, images, tmp_path, monkeypatch):
    missing = [replace(image, path="/nowhere/at/all.png") for image in images[:9]]
    captions = {image.image_id: "A dog." for image in images}
    write_attention(model, [*missing, images[9]], captions, tmp_path / "a.json", 20)
    assert list(read_attention(tmp_path / "a.json")) == ["9/1.png"]
    monkeypatch.setattr("src.evaluate.word_attention", lambda *_: None)
    write_attention(model, images, captions, tmp_path / "b.json", 20)
    assert not (tmp_path / "b.json").exists()


def test_what_is_written_is_read_again_to_a_byte(tmp_path):
    heat = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    words = word_attention(["a", "dog"], heat, (0.1, 0.0, 0.9, 1.0))
    empty = word_attention([], torch.zeros(0, 3, 3))
    path = tmp_path / "attention.json"
    path.write_text(json.dumps([encode_attention("a.jpg", words), encode_attention("b.jpg", empty)]))
    entry = read_attention(path)["a.jpg"]
    assert (entry["words"], entry["height"], entry["width"]) == (["a", "dog"], 3, 4)
    decoded = torch.tensor([list(base64.b64decode(grid)) for grid in entry["heat"]]).view(2, 3, 4) / 255
    assert torch.allclose(decoded, heat, atol=0.5 / 255 + 1e-6)
    assert read_attention(path)["b.jpg"]["heat"] == []


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1},
        [{"image_id": "a"}],
        [ENTRY | {"words": ["x", "y"]}],
        [ENTRY | {"region": [0]}],
        [ENTRY | {"heat": ["%%%"]}],
    ],
)
def test_a_damaged_file_is_a_note_of_the_report(tmp_path, content):
    (tmp_path / "attention.json").write_text(json.dumps(content))
    run = read_run(tmp_path)
    assert run.attention == {}
    assert any("attention.json could not be read" in note for note in run.notes)
