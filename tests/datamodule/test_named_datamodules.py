"""The named data modules pass their settings to the download and the reader."""

import json
from pathlib import Path

from PIL import Image

from src.datamodule import flickr
from src.datamodule.flickr import FlickrDataModule
from src.datamodule.medicat import MedicatDataModule


def flickr_folder(root: Path) -> Path:
    (root / "mine").mkdir()
    rows = ["image,caption"]
    for number in range(5):
        Image.new("L", (4, 4)).save(root / "mine" / f"{number}.jpg")
        rows += [f"{number}.jpg,Caption {place} of {number}" for place in range(2)]
    (root / "mine.txt").write_text("\n".join(rows))
    return root


def medicat_folder(root: Path) -> Path:
    """A folder with two figures a paper, radiology in every second, and subfigures for the first figure."""
    (root / "figures").mkdir()
    rows = []
    for number in range(12):
        name = {"pdf_hash": f"p{number // 2}", "fig_uri": f"{number}.png"}
        Image.new("L", (4, 4)).save(root / "figures" / f"p{number // 2}_{number}.png")
        texts = {"s2_caption": f"Figure 1. Axial CT {number}", "s2orc_caption": f"Fig 1. Other {number}"}
        rows.append({**name, **texts, "radiology": number % 2 == 0, "scope": number % 2 == 1})
    (root / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    subfigure = {"label": "A", "points": [[0, 0], [5, 5]]}
    subfigures = {"pdf_hash": "p0", "fig_uri": "0.png", "answer": "accept", "subfigures": [subfigure]}
    (root / "subs.jsonl").write_text(json.dumps({**subfigures, "subcaptions": {"A": "(A) One subfigure"}}))
    return root


def captions(data) -> list[str]:
    data.setup()
    return [image.captions[0] for image in data.table.images]


def test_flickr_settings_reach_the_reader_and_the_download_comes_first(tmp_path: Path, monkeypatch) -> None:
    calls = []

    def fetch(data_dir: Path, which: bool | str) -> None:
        calls.append((data_dir, which))
        flickr_folder(tmp_path)

    monkeypatch.setattr(flickr, "download_flickr", fetch)
    settings = {"captions_file": "mine.txt", "images_dir": "mine"}
    assert len(captions(FlickrDataModule(tmp_path, download="flickr30k", **settings))) == 5
    data = FlickrDataModule(tmp_path, num_samples=7, **settings)
    assert len(captions(data)) == 4
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert calls == [(tmp_path, "flickr30k")]


def test_medicat_settings_reach_the_reader(tmp_path: Path) -> None:
    data = MedicatDataModule(
        medicat_folder(tmp_path), captions_file="index.jsonl", images_dir="figures", subcaptions_file="subs.jsonl",
        radiology_only=True, caption_fields=["s2orc_caption"], strip_labels=False, min_words=4, num_samples=4,
    )  # fmt: skip
    assert captions(data) == [f"Fig 1. Other {number}" for number in (2, 4, 6, 8)]
    data = MedicatDataModule(tmp_path, captions_file="index.jsonl", scope_only=True, caption_fields="s2_caption")
    assert captions(data)[:2] == ["Axial CT 1", "Axial CT 3"]
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [4, 1, 1]
