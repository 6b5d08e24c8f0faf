"""Flickr folders in every layout, clean and dirty, become tables or one clear error."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from src.datamodule.caption_table import CaptionTable
from src.datamodule.readers.folder import read_folder
from src.datamodule.readers.tables import read_delimited
from src.utils.errors import UserError
from tests.datamodule.tiny import captions, skipped

NAMES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")


def folder(tmp_path: Path, content: str | bytes, file: str = "captions.txt", images: str = "Images") -> Path:
    """A Flickr folder with one captions file and empty images: readers do not open them."""
    (tmp_path / images).mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (tmp_path / images / name).touch()
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "images", "text", "expected", "malformed"),
    [
        ("captions.txt", "Images", '\n \n"Image", "Caption"\n\nb.jpg, A dog .\na.jpg,"One , ""x"""\nb.jpg,Also .\n \n',
         {"b.jpg": ("A dog .", "Also ."), "a.jpg": ('One , "x"',)}, []),
        ("results.csv", "images",
         "image_name| comment_number| comment\na.jpg| 0| A | B .\nb.jpg| 4   A dog runs .\nc.jpg| A cat\n",
         {"a.jpg": ("A | B .",), "b.jpg": ("A dog runs .",)}, [(4, "c.jpg", "malformed line")]),
        ("Flickr8k_text/Flickr8k.token.txt", "Flicker8k_Dataset",
         'a.jpg#0\tA dog , "big" .\na.jpg#1\tA dog .\nb.jpg.1#0\tNo such image .\nb.jpg A cat\n',
         {"a.jpg": ('A dog , "big" .', "A dog .")},
         [(3, "b.jpg.1", "no image"), (4, "b.jpg A cat", "malformed line")]),
        ("all.txt", "Images", "a.jpg,One, two\nb.jpg,Three\n", {"a.jpg": ("One, two",), "b.jpg": ("Three",)}, []),
    ],
    ids=["kaggle", "pipes", "token", "no header"],
)  # fmt: skip
def test_layouts_of_flickr(tmp_path: Path, file, images, text, expected, malformed) -> None:
    root = folder(tmp_path, text, file, images)
    table = read_folder(root)
    assert (captions(table), skipped(table)) == (expected, malformed)
    image = next(image for image in table.images if image.image_id == "a.jpg")
    assert (image.path, image.group, image.split) == (str(root / images / "a.jpg"), "a.jpg", None)


def karpathy(splits: dict[str, str]) -> str:
    images = [{"filename": name, "split": split, "sentences": [{"raw": name}]} for name, split in splits.items()]
    return json.dumps({"images": images, "dataset": "flickr8k"})


def test_karpathy_split_beside_a_captions_file(tmp_path: Path) -> None:
    root = folder(tmp_path, "image,caption\n" + "".join(f"{name},Hello\n" for name in NAMES))
    (root / "split.json").write_text(karpathy({"a.jpg": "train", "b.jpg": "val", "c.jpg": "test"}))
    table = read_folder(root, karpathy_json="split.json")
    splits = {image.image_id: image.split for image in table.images}
    assert splits == {"a.jpg": "train", "b.jpg": "val", "c.jpg": "test"}
    assert table.excluded == {"not in split.json": 1}
    assert table.skipped == []
    without = read_folder(root, karpathy_json="split.json", official_split=False)
    assert [image.split for image in without.images] == [None] * 4
    (root / "split.json").write_text(karpathy({"x.jpg": "train"}))
    with pytest.raises(UserError, match=r"names none of the 4 images.*official_split=false"):
        read_folder(root, karpathy_json="split.json")


def test_karpathy_images_that_are_malformed_are_listed(tmp_path: Path) -> None:
    images = [
        {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "Good"}, {"tokens": []}, 7]},
        {"filename": "b.jpg", "split": "train", "sentences": []},
        {"filename": "c.jpg", "split": "elsewhere", "sentences": [{"raw": "x"}]},
        "no image",
        {"filename": None, "split": "val", "sentences": [{"raw": "x"}]},
    ]
    table = read_folder(folder(tmp_path, json.dumps({"images": images}), "dataset_flickr8k.json"))
    assert captions(table) == {"a.jpg": ("Good",)}
    reasons = [(line, reason.split()[0]) for line, _, reason in skipped(table)]
    assert reasons == [(n, "empty") for n in (1, 1, 2)] + [(n, "malformed") for n in (3, 4, 5)]


def test_files_and_folders_named_by_hand(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "image,caption\na.jpg,Hello\n", "mine.txt", "mine")
    assert len(read_folder(root, "mine.txt", "mine").images) == 1
    assert len(read_folder(root, root / "mine.txt", root / "mine").images) == 1


# The 3rd line of a file, the caption that it gives to c.jpg, why it is skipped.
DIRTY_ROWS = [
    ("c.jpg,One, two .", "One, two .", ""),
    ("./c.jpg,First .", "First .", ""),
    ('c.jpg,He said "hi", loudly .', 'He said "hi", loudly .', ""),
    ('c.jpg, "One, two ."', "One, two .", ""),
    ('c.jpg,"One\ntwo ."', "One two .", ""),
    ("c.jpg,A\x00dog\x07\truns .", "A dog runs .", ""),
    ("c.jpg,👩‍👧 כלב רץ .", "👩‍👧 כלב רץ .", ""),
    ("c.jpg," + "word " * 5000, ("word " * 5000).strip(), ""),
    *((line, "", "malformed line") for line in ("c.jpg A dog", 'c.jpg,"A dog","more"')),
    *((line, "", "unclosed quote") for line in ('c.jpg,"A dog', '"c.jpg,A dog')),
    *((line, "", "empty caption") for line in ("c.jpg,", "c.jpg,  \t ", 'c.jpg,""', "c.jpg,\x00")),
    (",A dog", "", "no file name"),
    ("gone.jpg,A dog", "", "no image"),
    *((line, "", "outside the image folder") for line in ("/etc/passwd,A dog", "../captions.txt,A dog")),
    ("c.jpg\x00,A dog", "", "unprintable file name"),
    ("a.jpg, First .", "", "duplicate pair"),
]


@pytest.mark.parametrize(("line", "caption", "reason"), DIRTY_ROWS)
def test_dirty_rows_touch_no_other_row(tmp_path: Path, line: str, caption: str, reason: str) -> None:
    table = read_folder(folder(tmp_path, f"image,caption\na.jpg,First .\n{line}\nb.jpg,Last .\n"))
    expected = {"a.jpg": ("First .",), "b.jpg": ("Last .",)} | ({"c.jpg": (caption,)} if caption else {})
    assert captions(table) == expected
    assert [(row.line, row.reason) for row in table.skipped] == ([(3, reason)] if reason else [])
    assert table.rows_read == 3


def test_official_splits_are_looked_up_by_the_image_not_by_its_spelling(tmp_path: Path) -> None:
    root = folder(tmp_path, "image,caption\n./a.jpg,One\nb.jpg,Two\nc.jpg,Three\n")
    (root / "dataset_flickr8k.json").write_text(karpathy({"a.jpg": "train", "Images/b.jpg": "val", "C.JPG": "test"}))
    assert [image.split for image in read_folder(root).images] == ["train", "val", "test"]


def test_a_folder_without_captions(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()
    with pytest.raises(UserError, match=r"no captions file \(it holds notes\.md\)"):
        read_folder(tmp_path)
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,One\n")
    assert skipped(read_folder(tmp_path)) == [(2, "a.jpg", "no image")]


def test_unknown_headings_are_listed(tmp_path: Path) -> None:
    root = folder(tmp_path, "nr,what\n17,x\n18,y\n", "my.csv")
    with pytest.raises(UserError, match=r"my\.csv' has the columns \['nr', 'what'\].*image_column"):
        read_folder(root)
    with pytest.raises(UserError, match=r"my\.csv' has the columns \['nr', 'what'\], but none is 'photo'"):
        read_folder(root, image_column="photo")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"captions_file": "caption.txt"}, r"captions_file='caption\.txt' does not exist \(did you mean '.*captions"),
        ({"captions_file": "Images"}, r"captions_file='Images' is no file"),
        ({"captions_file": "a\0b"}, r"captions_file='a.*b' does not exist"),
        ({"images_dir": "Imges"}, r"images_dir='Imges' does not exist"),
    ],
)
def test_named_files_that_do_not_exist(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_folder(folder(tmp_path, "image,caption\na.jpg,One\n"), **settings)


def test_many_unclosed_quotes_take_no_longer_than_their_lines(tmp_path: Path) -> None:
    quotes = 'x"y\n' * 2000 + '"\n' * 2000 + (" " * 20_000 + '"\n') * 10
    (tmp_path / "captions.txt").write_text(f"image,caption\na.jpg,One\n{quotes}")
    assert len(read_delimited(tmp_path / "captions.txt", lambda name: False)) == 4_011


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no captions"),
        (b" \r\n\x00\n", "has no captions"),
        (b"image,caption\n", "has no captions"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "begins with '.*PNG'"),
        (b"{", r"captions\.json' is no json"),
        (b"[" * 100_000, "is no json"),
        (b"[]", "has no images"),
        (b'{"images": 1}', "has no images"),
        (b'{"images": [{"id": 1}], "annotations": []}', "no image with a caption|malformed"),
    ],
)
def test_files_that_are_no_captions_file(tmp_path: Path, content: bytes, message: str) -> None:
    name = "captions.json" if content[:1] in (b"{", b"[") else "captions.txt"
    with pytest.raises(UserError, match=message) as caught:
        read_folder(folder(tmp_path, content, name), captions_file=name).check()
    assert "\n" not in str(caught.value)


def table_or_line(root: Path, file: str | None = None) -> CaptionTable | None:
    """The table, or None where the reader ended in its one clear line."""
    try:
        return read_folder(root, file)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    return None


PIECES = ['"', ",", '""', "a.jpg", "A dog .", "\n", "\r\n", "#0\t", "|", " 1 ", "\x00", "..", "/", "é"]
FUZZ = settings(max_examples=25, deadline=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(
    header=st.sampled_from(["image,caption\n", "image_name| comment_number| comment\n", "a.jpg#0\tA\n", ""]),
    body=st.lists(st.sampled_from(PIECES), max_size=40).map("".join).map(str.encode) | st.binary(max_size=80),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"]),
    suffix=st.sampled_from([".txt", ".json"]),
)
@example(header="image,caption\n", body=b'a.jpg,"\n' * 50, mark=b"", suffix=".txt")
def test_any_bytes_give_a_table_or_one_clear_line(
    tmp_path: Path, header: str, body: bytes, mark: bytes, suffix: str
) -> None:
    root = folder(tmp_path, mark + header.encode() + body, f"any{suffix}")
    table = table_or_line(root, f"any{suffix}") or CaptionTable([], [], 0)
    pairs = [(image.image_id, caption) for image in table.images for caption in image.captions]
    assert len(pairs) + len(table.skipped) == table.rows_read
    assert len(set(pairs)) == len(pairs)
    assert all(caption == " ".join(caption.split()) != "" for _, caption in pairs)
    assert {image.image_id for image in table.images} <= set(NAMES)


KEYS = st.sampled_from(["images", "filename", "split", "sentences", "raw"])
VALUES = st.none() | st.integers() | st.text(max_size=8) | st.sampled_from([*NAMES, "train", "val"])


@FUZZ
@given(st.recursive(VALUES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5)))
def test_any_json_gives_a_table_or_one_clear_line(tmp_path: Path, content: object) -> None:
    table_or_line(folder(tmp_path, json.dumps({"images": [content]}), "dataset_flickr8k.json"))


def test_real_captions_agree_with_the_csv_module(shared_data: Path) -> None:
    """38,955 rows with commas, quotes, doubled quotes; ten exact duplicates."""
    file = shared_data / "flickr8k" / "captions_all.txt"
    with open(file, newline="", encoding="utf-8") as lines:
        expected = [tuple(row) for row in csv.reader(lines)][1:]
    found = read_delimited(file, lambda name: False)
    assert [(row.fields["image"], row.fields["caption"]) for row in found] == expected
