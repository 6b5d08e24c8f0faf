"""The data module passes its settings on to the download and the reader."""

from pathlib import Path

import pytest
from PIL import Image

from src.datamodule import flickr
from src.datamodule.flickr import FlickrDataModule


def flickr_folder(root: Path, names: int = 5) -> Path:
    (root / "pictures").mkdir()
    rows = ["image,caption"]
    for number in range(names):
        Image.new("L", (4, 4)).save(root / "pictures" / f"{number}.jpg")
        rows += [f"{number}.jpg,Caption {place} of {number}" for place in range(2)]
    (root / "mine.txt").write_text("\n".join(rows))
    return root


def test_settings_reach_the_reader(tmp_path: Path) -> None:
    root = flickr_folder(tmp_path)
    data = FlickrDataModule(root, captions_file="mine.txt", images_dir="pictures", num_samples=7)
    data.setup()
    assert [len(data.splits[part]) for part in ("train", "val", "test")] == [2, 1, 1]
    assert data.table is not None
    assert data.table.num_pairs == 7


def test_download_is_asked_for_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(data_dir: Path, which: bool | str) -> None:
        asked.append((data_dir, which))
        flickr_folder(tmp_path)

    monkeypatch.setattr(flickr, "download_flickr", fetch)
    settings = {"captions_file": "mine.txt", "images_dir": "pictures"}
    FlickrDataModule(tmp_path, download="flickr30k", **settings).setup()
    assert asked == [(tmp_path, "flickr30k")]
    FlickrDataModule(tmp_path, **settings).setup()
    assert len(asked) == 1
