"""Drawn medical figures: the layout of MedICaT, several to a paper, in several modes."""

import json
from collections import Counter

import pytest
from PIL import Image

from src.datamodule.images.decode import load_image
from src.datamodule.readers.medicat import read_medicat
from src.demo.synthetic.medical import write_phantoms
from src.utils.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 80, seed=1, size=48)
    return folder


def test_the_ordinary_reader_reads_them(folder):
    table = read_medicat(folder)

    assert (len(table.images), table.skipped) == (80, [])
    assert not any(image.captions[0].startswith("Fig") for image in table.images)
    assert {"cc-by", "cc0"} <= {image.license for image in table.images}
    for image in table.images:
        pixels = load_image(image.path)
        assert pixels.shape[0] == 3
        assert pixels.float().std() > 10


def test_papers_have_one_to_four_figures_and_labels_of_their_own(folder):
    records = [json.loads(line) for line in (folder / "phantoms.jsonl").read_text().splitlines()]

    figures = Counter(record["pdf_hash"] for record in records)
    labels = {record["s2orc_caption"].split()[0] for record in records}

    assert set(figures.values()) == {1, 2, 3, 4}
    assert {"Figure", "Fig.", "FIGURE"} <= labels
    assert any(record["s2_caption"] is None for record in records)
    assert all((folder / "figures" / f"{r['pdf_hash']}_{r['fig_uri']}").is_file() for r in records)


def test_the_files_come_in_many_modes_and_some_have_panels(folder):
    pictures = [Image.open(path) for path in (folder / "figures").iterdir()]

    assert {"L", "RGB", "RGBA", "LA", "P", "I;16"} == {picture.mode for picture in pictures}
    assert any(picture.width > 1.9 * picture.height for picture in pictures)


def test_the_same_seed_gives_the_same_files_and_a_larger_set_begins_with_the_smaller(folder, tmp_path):
    write_phantoms(tmp_path, 20, seed=1, size=48)

    whole = (folder / "phantoms.jsonl").read_text()

    assert whole.startswith((tmp_path / "phantoms.jsonl").read_text())
    for path in (tmp_path / "figures").iterdir():
        assert path.read_bytes() == (folder / "figures" / path.name).read_bytes()


@pytest.mark.parametrize("wrong", [{"num_images": 0}, {"num_images": 1, "size": 8}])
def test_no_pictures_or_too_small_ones_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match=r"datamodule.num_images="):
        write_phantoms(tmp_path, **wrong)
