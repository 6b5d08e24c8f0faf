"""A picture inside a shard is read by its path, as any picture is."""

import tarfile
from pathlib import Path

import pytest

from src.datamodule.images.decode import UnreadableImage, load_image
from src.datamodule.readers.shard_members import read_member
from src.datamodule.readers.shards import index_shards, read_images
from tests.datamodule.shard_files import add, picture, write_shard


def test_each_picture_of_a_shard_is_found_by_the_path_of_its_row(tmp_path: Path) -> None:
    (shard,) = index_shards(tmp_path, [write_shard(tmp_path / "a.tar", range(3))])
    found = [load_image(image.path)[0, 0, 0].item() for image in read_images(shard)]
    assert found == [0, 1, 2]


def test_a_shard_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    for numbers in (range(3), range(2, 9)):
        write_shard(path, numbers)
        assert read_member(path / "000000002.png", 999) == picture(2)


def test_names_in_capitals_and_in_folders(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "part/7.JPG", b"a picture")
    assert read_member(tmp_path / "a.tar" / "part" / "7.jpg", 99) == b"a picture"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.tar/000000009.png", "no such file"),
        ("a.tar/../../secret.png", "no such file"),
        ("no_tar.txt/1.png", "no tar file that can be read"),
        ("empty.tar/1.png", "no such file"),
    ],
)
def test_what_is_not_there_is_unreadable(tmp_path: Path, name: str, reason: str) -> None:
    write_shard(tmp_path / "a.tar", range(3))
    (tmp_path / "no_tar.txt").write_text("words " * 200)
    with tarfile.open(tmp_path / "empty.tar", "w") as tar:
        add(tar, "1.png", b"")
    with pytest.raises(UnreadableImage, match=reason):
        load_image(tmp_path / name)


def test_a_member_over_the_limit_and_a_path_without_a_shard(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", range(3))
    with pytest.raises(OSError, match="No picture of 1 to 9 bytes"):
        read_member(path / "000000001.png", 9)
    with pytest.raises(FileNotFoundError):
        read_member(tmp_path / "nowhere" / "1.png", 9)
