"""The data module passes its settings on to the reader."""

import json
from pathlib import Path

from PIL import Image

from src.datamodule.medicat import MedicatDataModule


def release(root: Path, papers: int = 6) -> Path:
    """A folder with two figures a paper, radiology in every second, and panels for the first figure."""
    (root / "figures").mkdir()
    rows = []
    for number in range(papers * 2):
        name = {"pdf_hash": f"p{number // 2}", "fig_uri": f"{number}.png"}
        Image.new("L", (4, 4)).save(root / "figures" / f"p{number // 2}_{number}.png")
        texts = {
            "s2_caption": f"Figure 1. Axial CT number {number}",
            "s2orc_caption": f"Fig 1. Other {number}",
        }
        rows.append({**name, **texts, "radiology": number % 2 == 0, "scope": number % 2 == 1})
    (root / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    panel = {"label": "A", "points": [[0, 0], [5, 5]]}
    subfigures = {"pdf_hash": "p0", "fig_uri": "0.png", "answer": "accept", "subfigures": [panel]}
    (root / "subs.jsonl").write_text(json.dumps({**subfigures, "subcaptions": {"A": "(A) One panel"}}))
    return root


def test_settings_reach_the_reader(tmp_path: Path) -> None:
    data = MedicatDataModule(
        release(tmp_path),
        captions_file="index.jsonl",
        images_dir="figures",
        subcaptions_file="subs.jsonl",
        radiology_only=True,
        caption_fields=["s2orc_caption"],
        strip_labels=False,
        min_words=4,
        generation_length=96,
        num_samples=4,
    )
    data.setup()
    assert data.table is not None
    assert [image.captions[0] for image in data.table.images] == [f"Fig 1. Other {n}" for n in (2, 4, 6, 8)]
    assert data.generation_length == 96


def test_defaults_read_the_whole_release(tmp_path: Path) -> None:
    data = MedicatDataModule(release(tmp_path), captions_file="index.jsonl", scope_only=True)
    data.setup()
    assert data.table is not None
    assert [image.captions[0] for image in data.table.images][:2] == [
        "Axial CT number 1",
        "Axial CT number 3",
    ]
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [4, 1, 1]
