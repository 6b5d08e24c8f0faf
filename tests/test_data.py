"""`python -m src.data` prints what a folder holds and draws some of it."""

from pathlib import Path

import pytest
from PIL import Image

from src import data
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


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    put_rows(tmp_path / "x.csv", [("a", "b"), (1, 2)])
    with pytest.raises(UserError, match=r"columns \['a', 'b'\], none with"):
        data.main([f"data_dir={tmp_path}"])
