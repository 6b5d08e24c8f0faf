"""attention.json: written small, read carefully."""

import base64
import json

import pytest
import torch

from src.report.attention import read_attention, write_attention
from tests.report.fake_run import WordAttention


def test_what_is_written_is_read_again_to_a_byte(tmp_path):
    heat = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "attention.json"
    write_attention(path, {"a.jpg": WordAttention(["a", "dog"], heat, (0.1, 0.0, 0.9, 1.0))})
    entry = read_attention(path)["a.jpg"]
    assert entry["words"] == ["a", "dog"]
    assert (entry["height"], entry["width"], entry["region"]) == (3, 4, [0.1, 0.0, 0.9, 1.0])
    back = [list(base64.b64decode(grid)) for grid in entry["heat"]]
    assert torch.allclose(torch.tensor(back).view(2, 3, 4) / 255, heat, atol=0.5 / 255 + 1e-6)


def test_a_caption_without_words_is_an_entry_without_maps(tmp_path):
    write_attention(tmp_path / "a.json", {"a": WordAttention([], torch.zeros(0, 3, 3))})
    assert read_attention(tmp_path / "a.json")["a"]["heat"] == []


def entry(**changes):
    cell = base64.b64encode(bytes(4)).decode()
    return {"image_id": "a", "words": ["x"], "height": 2, "width": 2, "heat": [cell]} | changes


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "expected a list"),
        ([{"image_id": "a"}], "an entry is not a word map"),
        ([7], "an entry is not a word map"),
        ([entry(words=["x", "y"])], "does not fit its words"),
        ([entry(region=[0])], "does not fit its words"),
        ([entry(height=10_000, width=10_000)], "does not fit its words"),
        ([entry(height=3)], "is not 3 x 2 bytes a word"),
        ([entry(heat=["%%%"])], "base64"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content, said):
    path = tmp_path / "attention.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"(?i){said}"):
        read_attention(path)


def test_a_file_without_regions_means_the_whole_picture(tmp_path):
    path = tmp_path / "attention.json"
    path.write_text(json.dumps([entry() | {"more": "</script>"}]))
    found = read_attention(path)["a"]
    assert found["region"] == [0, 0, 1, 1]
    assert "more" not in found
