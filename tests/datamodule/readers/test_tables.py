"""Rows of captions files in each layout; what is no captions file ends in one clear line."""

import csv
from pathlib import Path

import pytest

from src.datamodule.readers.tables import Record, read_records
from src.utils.errors import UserError


def rows(tmp_path: Path, content: str | bytes, name: str = "captions.txt") -> list[Record]:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_records(file)


def test_rows_know_their_lines(tmp_path: Path) -> None:
    found = rows(tmp_path, 'image,caption\n\na.jpg,"One\ntwo"\nb.jpg,"Three\nc.jpg,Four\n')
    assert found == [
        Record(3, "a.jpg", "One\ntwo"),
        Record(5, "b.jpg", '"Three', "unclosed quote"),
        Record(6, "c.jpg", "Four"),
    ]


@pytest.mark.parametrize("header", ["Image,Caption", '"image","caption"', " image , caption "])
def test_headers_may_differ_a_little(tmp_path: Path, header: str) -> None:
    assert rows(tmp_path, f"{header}\na.jpg,One") == [Record(2, "a.jpg", "One")]


def test_a_caption_runs_over_twenty_lines_at_most(tmp_path: Path) -> None:
    lines = "\n".join("word" for _ in range(18))
    assert rows(tmp_path, f'image,caption\na.jpg,"{lines}\nend"\n')[0].error == ""
    assert rows(tmp_path, f'image,caption\na.jpg,"{lines}\n\n\nend"\n')[0].error == "unclosed quote"


def test_many_unclosed_quotes_take_no_longer_than_their_lines(tmp_path: Path) -> None:
    quotes = 'x"y\n' * 5000 + '"\n' * 5000 + (" " * 50_000 + '"\n') * 20
    assert len(rows(tmp_path, f"image,caption\na.jpg,One\n{quotes}")) == 10_021


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"captions\.txt' is empty; expected the header"),
        (b" \r\n\x00\n", "is empty"),
        (b"image,caption\n", "has no captions"),
        (b"image;caption\na.jpg;A dog\n", "begins with 'image;caption'; expected the header"),
        (b"image\tcaption\na.jpg\tA dog\n", r"begins with 'image\\\\tcaption'"),
        (b"file,text\na.jpg,A dog\n", "begins with 'file,text'"),
        (b"a.jpg,A dog\n", "begins with 'a.jpg,A dog'"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "begins with '.*PNG'"),
    ],
)
def test_files_that_are_no_captions_file(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        rows(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "", "\x00"])
def test_json_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"dataset_flickr8k\.json' is no json"):
        rows(tmp_path, text, "dataset_flickr8k.json")


@pytest.mark.parametrize("text", ["[]", "{}", '{"images": 1}', "1"])
def test_json_without_images(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="has no list 'images'"):
        rows(tmp_path, text, "dataset_flickr8k.json")


def test_real_captions_agree_with_the_csv_module(shared_data: Path) -> None:
    """38,955 rows with commas, quotes, doubled quotes; ten exact duplicates."""
    file = shared_data / "flickr8k" / "captions_all.txt"
    with open(file, newline="", encoding="utf-8") as lines:
        expected = [tuple(row) for row in csv.reader(lines)][1:]
    assert [(row.name, row.caption) for row in read_records(file)] == expected
