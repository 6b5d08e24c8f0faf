"""Counting samples of shards: whole, odd, cut and hostile ones."""

import json
import logging
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.readers import shards
from src.datamodule.readers.shards import (
    INDEX_NAME,
    index_shards,
    read_captions,
    read_images,
    read_sample,
    wanted,
)
from src.utils.errors import UserError
from tests.datamodule.shard_files import add, picture, write_shard


def test_samples_are_counted_and_named(tmp_path: Path) -> None:
    paths = [write_shard(tmp_path / "b" / "1.tar", range(3)), write_shard(tmp_path / "0.tar", range(3, 8))]
    found = index_shards(tmp_path, paths)
    assert [(shard.name, shard.samples, shard.incomplete) for shard in found] == [
        ("b/1.tar", 3, 0),
        ("0.tar", 5, 0),
    ]
    assert Path(found[0].path).samefile(paths[0])
    rows = list(read_images(found[0]))
    assert [row.image_id for row in rows] == [f"b/1.tar/{number:09}" for number in range(3)]
    assert rows[2].captions == ("picture 2",)
    assert rows[2].path.endswith("1.tar/000000002.png")
    assert index_shards(tmp_path, []) == []


def test_samples_without_picture_or_caption_are_counted_apart(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "1.jpg", picture(1, "JPEG"))
        add(tar, "1.txt", b"one")
        add(tar, "2.txt", b"no picture")
        add(tar, "3.jpg", picture(3, "JPEG"))
        add(tar, "4.jpg", picture(4, "JPEG"))
        add(tar, "4.txt", b"  \n")
        add(tar, "5.JPG", picture(5, "JPEG"))
        add(tar, "5.json", b'{"caption": "five"}')
    (shard,) = index_shards(tmp_path, [tmp_path / "a.tar"])
    assert (shard.samples, shard.incomplete) == (2, 3)
    assert [row.captions for row in read_images(shard)] == [("one",), ("five",)]


def test_counts_are_kept_until_a_shard_changes(tmp_path: Path, monkeypatch) -> None:
    path = write_shard(tmp_path / "a.tar", range(3))
    index_shards(tmp_path, [path])
    assert (tmp_path / INDEX_NAME).is_file()
    scanned = []
    real = shards._count
    monkeypatch.setattr(shards, "_count", lambda one: scanned.append(one) or real(one))
    assert index_shards(tmp_path, [path])[0].samples == 3
    assert scanned == []
    write_shard(path, range(5))
    os.utime(path, ns=(1, 1))
    assert index_shards(tmp_path, [path])[0].samples == 5
    assert scanned == [path]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": ["x", "y"]}', "\0"])
def test_a_damaged_index_is_made_again(tmp_path: Path, content: str) -> None:
    path = write_shard(tmp_path / "a.tar", range(3))
    (tmp_path / INDEX_NAME).write_text(content)
    assert index_shards(tmp_path, [path])[0].samples == 3


def test_a_folder_that_cannot_be_written_costs_counting_anew(tmp_path: Path, monkeypatch, caplog) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write_shard(tmp_path / "a.tar", range(3))
    monkeypatch.setattr(shards, "atomic_write", refuse)
    with caplog.at_level(logging.INFO):
        assert index_shards(tmp_path, [path])[0].samples == 3
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("000000001.jpg", True),
        ("folder/000000001.JSON", True),
        ("a.txt", True),
        ("../../etc/cron.d/evil.txt", False),
        ("a/../../evil.jpg", False),
        ("..\\evil.jpg", False),
        ("/etc/evil.jpg", False),
        ("a.pickle", False),
        ("a.pyd", False),
        ("a.pth", False),
        ("a.npy", False),
        ("a.b.jpg", False),
        (".jpg", False),
        ("a.jpg/", False),
        ("evil\n.jpg", False),
        ("evil\x1b[2J.jpg", False),
        ("bad\udcff.jpg", False),
        ("__meta__/a.jpg", False),
    ],
)
def test_which_members_are_read(name: str, read: bool) -> None:
    assert wanted(name) is read


class Trap:
    def __reduce__(self):
        return os.system, ("touch trapped",)


def test_hostile_members_are_passed_over(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for key in ("../1", "2"):
            add(tar, f"{key}.png", picture(1))
            add(tar, f"{key}.txt", b"caption")
            add(tar, f"{key}.pickle", pickle.dumps(Trap()))
            add(tar, f"{key}.pyd", pickle.dumps(Trap()))
        link = tarfile.TarInfo("3.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        add(tar, "3.txt", b"caption")
    (shard,) = index_shards(tmp_path, [tmp_path / "a.tar"])
    assert (shard.samples, shard.incomplete) == (1, 1)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("kept", [0, 100, 3000, -1200])
def test_a_cut_shard_is_refused(tmp_path: Path, kept: int) -> None:
    path = write_shard(tmp_path / "a.tar", range(3))
    end = path.read_bytes().rstrip(b"\0")
    path.write_bytes(end[:kept])
    with pytest.raises(UserError, match=r"shard .*a\.tar: .*expected an uncompressed tar") as caught:
        index_shards(tmp_path, [path])
    assert "\n" not in str(caught.value)


def test_what_is_no_plain_tar_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", range(3))
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as tar:
        tar.add(tmp_path / "a.tar", "a.jpg")
    (tmp_path / "text.tar").write_text("hello" * 500)
    for name in ("zipped.tar", "text.tar"):
        with pytest.raises(UserError, match=name):
            index_shards(tmp_path, [tmp_path / name])


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for _ in range(2):
            add(tar, "1.png", picture(1))
    with pytest.raises(UserError, match=r"1\.png occurs twice"):
        index_shards(tmp_path, [tmp_path / "a.tar"])


def test_a_member_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shards, "TEXT_LIMIT", 10)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "1.txt", b"x" * 11)
    with pytest.raises(UserError, match=r"1\.txt would take 11 bytes, more than 10"):
        index_shards(tmp_path, [tmp_path / "a.tar"])


@pytest.mark.parametrize(
    ("text", "record", "expected"),
    [
        (b" a  dog\n", None, ("a dog",)),
        (b"a dog", b'{"caption": "other"}', ("a dog",)),
        (None, b'{"caption": "a cat"}', ("a cat",)),
        (b"x", b'{"captions": ["a", " b ", "a", "", 3, null]}', ("a", "b")),
        (None, b'{"captions": "no list", "caption": "a"}', ("a",)),
        (None, b'{"caption": 5}', ()),
        (None, b"[1]", ()),
        (None, b"{broken", ()),
        (None, b"[" * 100_000, ()),
        (b"caf\xe9", None, ("caf\ufffd",)),
        (None, None, ()),
        (b"", b"", ()),
    ],
)
def test_captions(text: bytes | None, record: bytes | None, expected: tuple[str, ...]) -> None:
    assert read_captions(text, record) == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60) | st.dictionaries(st.text(), st.text()).map(json.dumps))
def test_any_bytes_give_captions_or_none(text: bytes, record: bytes | str) -> None:
    record = record.encode("utf-8", "replace") if isinstance(record, str) else record
    assert all(caption.strip() == caption != "" for caption in read_captions(text, record))


def test_a_sample_needs_picture_and_caption() -> None:
    fields = {"__key__": "7", "png": b"p", "txt": b"a"}
    sample = read_sample("0.tar", fields)
    assert sample is not None
    assert (sample.name, sample.data, sample.captions) == ("0.tar/7", b"p", ("a",))
    assert read_sample("0.tar", {**fields, "png": b""}) is None
    assert read_sample("0.tar", {**fields, "txt": b""}) is None
