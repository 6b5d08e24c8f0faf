"""Drawn scenes: the very layout of Flickr8k, the same for the same seed."""

import csv

import pytest
from PIL import Image

from src.datamodule.flickr import read_flickr
from src.demo.synthetic.scenes import write_scenes
from src.utils.errors import UserError


def test_the_ordinary_reader_reads_them(tmp_path):
    write_scenes(tmp_path, 12, "night", seed=3, size=48)

    table = read_flickr(tmp_path)

    assert (len(table.images), table.num_pairs, table.skipped) == (12, 60, [])
    assert all(Image.open(image.path).size == (48, 48) for image in table.images)
    with (tmp_path / "captions.txt").open(newline="") as file:
        assert next(csv.reader(file)) == ["image", "caption"]


def test_commas_stand_in_quoted_rows_and_punctuation_is_spaced(tmp_path):
    write_scenes(tmp_path, 12, "night", size=32)

    lines = (tmp_path / "captions.txt").read_text().splitlines()[1:]

    quoted = [line for line in lines if '"' in line]
    assert quoted
    assert all(line.endswith(' ."') and " , " in line for line in quoted)


@pytest.mark.parametrize("style", ["plain", "night"])
def test_the_same_seed_draws_and_tells_the_same(tmp_path, style):
    for name in ("one", "two"):
        write_scenes(tmp_path / name, 6, style, seed=5, size=40)

    one, two = (sorted(path for path in (tmp_path / name).rglob("*.*")) for name in ("one", "two"))

    assert [path.name for path in one] == [path.name for path in two]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_a_larger_set_begins_with_the_smaller_and_another_seed_is_another_set(tmp_path):
    write_scenes(tmp_path / "small", 3, seed=1, size=32)
    write_scenes(tmp_path / "large", 6, seed=1, size=32)
    write_scenes(tmp_path / "other", 3, seed=2, size=32)

    small, large, other = (
        (tmp_path / name / "captions.txt").read_text() for name in ("small", "large", "other")
    )

    assert large.startswith(small)
    assert other != small


def test_an_unknown_style_is_named(tmp_path):
    with pytest.raises(UserError, match=r"datamodule.style='oil'; expected one of plain, night"):
        write_scenes(tmp_path, 1, "oil")


@pytest.mark.parametrize("wrong", [{"num_images": 0}, {"num_images": 1, "size": 8}])
def test_no_pictures_or_too_small_ones_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match=r"datamodule.num_images="):
        write_scenes(tmp_path, **wrong)
