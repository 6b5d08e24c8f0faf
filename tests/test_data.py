"""`python -m src.data` prints what a folder holds and draws some of it."""

from pathlib import Path

import pytest
from PIL import Image

from src import data
from src.datamodule.folder import FolderDataModule
from src.metrics.scorer import CaptionScorer
from src.utils.errors import UserError
from tests.datamodule.layouts import LAYOUTS, put_rows
from tests.datamodule.readers.test_formats import make_samples


def test_a_folder_is_described(tmp_path: Path, capsys) -> None:
    LAYOUTS["spreadsheet"](tmp_path / "mine", make_samples())
    with open(tmp_path / "mine" / "Tabelle.csv", "a") as file:
        file.write("7;No such image;2024;gone.png\n")
    data.main([f"data_dir={tmp_path / 'mine'}", f"out={tmp_path / 'sheet.png'}", "checkpoint=src/demo/vit_gpt2_tiny"])
    lines = capsys.readouterr().out.splitlines()
    text = {line[:16].strip(): line[16:] for line in lines if line[:16].strip()}
    assert text["rows"] == "101; 1 skipped"
    assert "1 no image; the first: line 102, 'gone.png'" in "\n".join(lines)
    assert (text["images"], text["captions"]) == ("50", "100, 2.0 per image")
    assert text["caption words"].startswith("median 5, 95% up to 5, longest 5")
    assert "are cut at" in text["caption tokens"]
    assert text["splits"].startswith("train ")
    assert text["near-duplicates"].startswith("0 images")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > 1000


def test_document_frequencies_of_the_training_split_score_a_single_image(tmp_path: Path) -> None:
    LAYOUTS["spreadsheet"](tmp_path / "mine", make_samples())
    file = tmp_path / "df.json"
    data.main([f"data_dir={tmp_path / 'mine'}", f"out={tmp_path / 'sheet.png'}", f"write_df={file}"])
    split = FolderDataModule(tmp_path / "mine")
    split.setup()
    images = split.splits["train"]
    texts = [image.image_id for image in images], [image.captions[0] for image in images], [i.captions for i in images]
    found, own = (CaptionScorer(cider_df=name).score(*texts).per_image for name in (str(file), None))
    assert [row["cider_d"] for row in found] == [row["cider_d"] for row in own]  # the same documents
    (alone,) = CaptionScorer(cider_df=str(file)).score(*(column[:1] for column in texts)).per_image
    assert alone["cider_d"] == own[0]["cider_d"] > 0


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    put_rows(tmp_path / "x.csv", [("a", "b"), (1, 2)])
    with pytest.raises(UserError, match=r"columns \['a', 'b'\], none with"):
        data.main([f"data_dir={tmp_path}"])
