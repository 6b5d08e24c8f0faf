"""Data modules that draw on first use."""

import pytest

from src.demo.synthetic.datamodules import SyntheticFlickrDataModule, SyntheticMedicalDataModule, draw_once


def test_scenes_are_drawn_once_and_then_read(tmp_path):
    folder = tmp_path / "drawn" / "night-10"
    for _ in range(2):
        data = SyntheticFlickrDataModule(folder, style="night", num_images=10, picture_size=32)
        data.prepare_data()
        data.setup()
        assert sum(len(images) for images in data.splits.values()) == 10
        (folder / "Images" / "note").touch()  # would be gone if the folder were made again

    assert (folder / "Images" / "note").is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["night-10"]


def test_medical_figures_are_split_by_paper(tmp_path):
    data = SyntheticMedicalDataModule(tmp_path / "medical", num_images=40, picture_size=32)
    data.prepare_data()
    data.setup()

    papers = [{image.group for image in images} for images in data.splits.values()]
    assert sum(len(images) for images in data.splits.values()) == 40
    assert not papers[0] & papers[1]
    assert not papers[0] & papers[2]


def test_a_drawing_that_fails_leaves_nothing_behind(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        draw_once(tmp_path / "set", fail, "pictures")
    assert list(tmp_path.iterdir()) == []


def test_another_process_may_be_faster(tmp_path):
    def draw(folder):
        (folder / "ours").touch()
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "theirs").touch()

    draw_once(tmp_path / "set", draw, "pictures")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["theirs"]
