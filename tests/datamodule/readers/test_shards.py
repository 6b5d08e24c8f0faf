"""Tar shards as rows of the ordinary table: complete, dirty, truncated and hostile ones."""

import io
import json
import os
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from src.datamodule.folder import FolderDataModule
from src.datamodule.images.decode import load_image
from src.datamodule.readers.files import clean_caption
from src.datamodule.readers.folder import read_folder
from src.datamodule.readers.records import read_sidecars
from src.utils.errors import UserError


def image(number: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (number % 256, number // 256, 99)).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def samples(numbers: range, prefix: str = "") -> dict[str, bytes]:
    """Members of img2dataset's samples: image, txt, json."""
    members = {}
    for number in numbers:
        members[f"{prefix}{number:09}.png"] = image(number)
        members[f"{prefix}{number:09}.txt"] = f"image {number}".encode()
        members[f"{prefix}{number:09}.json"] = json.dumps({"caption": f"image {number}"}).encode()
    return members


@pytest.mark.parametrize("prefix", ["", "./", "part/"])
def test_samples_are_rows_with_the_byte_range_of_their_image(tmp_path: Path, prefix: str) -> None:
    write_tar(tmp_path / "00001.tar", samples(range(3, 5), prefix))
    write_tar(tmp_path / "00000.tar", samples(range(3), prefix))
    table = read_folder(tmp_path)
    assert [row.image_id for row in table.images] == [f"{number:09}.png" for number in range(5)]
    for number, row in enumerate(table.images):
        offset, size = row.span
        assert row.captions == (f"image {number}",)
        assert Path(row.path).read_bytes()[offset : offset + size] == image(number)
        assert load_image(row.path, row.box, row.span)[0, 0, 0].item() == number
    assert (table.rows_read, table.skipped) == (5, [])


def test_samples_without_image_or_caption_are_listed(tmp_path: Path) -> None:
    members = {f"{number}.jpg": image(number, "JPEG") for number in (1, 3, 4)} | {"5.JPG": image(5, "JPEG")}
    members |= {"1.txt": b"one", "2.txt": b"no image", "4.txt": b"  \n", "5.json": b'{"caption": "five"}'}
    table = read_folder(write_tar(tmp_path / "a.tar", dict(sorted(members.items()))).parent)
    assert [row.captions for row in table.images] == [("one",), ("five",)]
    reasons = {row.image_id: row.reason for row in table.skipped}
    assert reasons == {"2": "no image", "3.jpg": "empty caption", "4.jpg": "empty caption"}
    assert table.rows_read == 5


def test_members_that_do_not_stand_together_are_joined(tmp_path: Path) -> None:
    members = samples(range(3))
    scattered = {name: members[name] for name in sorted(members, key=lambda name: (name.endswith("png"), name))}
    write_tar(tmp_path / "a.tar", scattered)
    write_tar(tmp_path / "b.tar", samples(range(3, 6)))
    assert len(read_folder(tmp_path).images) == 6


def test_a_compressed_archive_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", samples(range(2)), "w:gz")
    with pytest.raises(UserError, match=r"a\.tar\.gz' is a compressed archive.*gunzip"):
        read_folder(tmp_path)
    (tmp_path / "a.tar.gz").rename(tmp_path / "a.tar")
    with pytest.raises(UserError, match=r"a\.tar'.*expected an uncompressed"):
        read_folder(tmp_path)


def test_folders_and_file_names_give_the_official_split(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "validation", "test")):
        numbers = range(number * 10, number * 10 + 2 + number)
        write_tar(tmp_path / "folders" / split / "0.tar", samples(numbers))
        write_tar(tmp_path / "flat" / f"{split}-0.tar", samples(range(2)))
    data = FolderDataModule(tmp_path / "folders")
    data.setup()
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 2, "val": 3, "test": 4}
    assert data.splits["val"][0].image_id == "000000010.png"
    found = read_folder(tmp_path / "flat").images
    assert [row.split for row in found] == ["test", "test", "train", "train", "val", "val"]
    assert [row.image_id for row in found][::2] == [f"{x}-0.tar/000000000.png" for x in ("test", "train", "validation")]
    assert len(read_folder(tmp_path / "flat", "t*.tar").images) == 4


@pytest.mark.parametrize(
    "name",
    ["../../etc/evil.png", "a/../../evil.png", "..\\evil.png", "/etc/evil.png", "a.pickle", "a.npy", "a.b.png",
     ".png", "evil\n.png", "evil\x1b[2J.png", "bad\udcff.png", "__meta__/a.png"],
)  # fmt: skip
def test_hostile_and_foreign_members_are_ignored(tmp_path: Path, name: str) -> None:
    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'trapped'}",)

    path = write_tar(tmp_path / "a.tar", {"1.png": image(1), "1.txt": b"one", name: pickle.dumps(Trap())})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("3.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    table = read_folder(tmp_path)
    assert [row.image_id for row in table.images] == ["1.png"]
    assert (table.skipped, (tmp_path / "trapped").exists()) == ([], False)


@pytest.mark.parametrize("kept", [0, 100, 3000, -600, -1200])
def test_a_truncated_shard_is_refused(tmp_path: Path, kept: int) -> None:
    path = write_tar(tmp_path / "a.tar", samples(range(3)))
    path.write_bytes(path.read_bytes().rstrip(b"\0")[:kept])
    with pytest.raises(UserError, match=r"shard .*a\.tar'.*expected an uncompressed \.tar file") as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "record", "expected"),
    [
        (b" a  dog\n", b"", ("a dog",)),
        (b"a dog", b'{"caption": "other"}', ("a dog",)),
        (b"", b'{"caption": "a cat"}', ("a cat",)),
        (b"x", b'{"captions": ["a", " b ", "a", "", 3, null]}', ("a", "b")),
        (b"", b'{"caption": 5}', ()),
        (b"caf\xe9", b"", ("caf\ufffd",)),
        *((b"", record, ()) for record in (b"[1]", b"{broken", b"[" * 100_000, b"\xff\xfe\x00", b"")),
    ],
)
def test_captions(text: bytes, record: bytes, expected: tuple[str, ...]) -> None:
    found = (clean_caption(text) for text in read_sidecars(text, record) if isinstance(text, str))
    assert tuple(dict.fromkeys(filter(None, found))) == expected
