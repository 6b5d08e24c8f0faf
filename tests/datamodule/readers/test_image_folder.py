"""Names in captions files, asked of a folder; some are hostile."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from src.datamodule.readers.image_folder import ImageFolder, ImageNotFound, find_folder
from src.utils.errors import UserError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "Images"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "folder.jpg").mkdir()
    for name in ("a.jpg", "b, c.jpg", "sub/d.jpg", "sub/deep/e.jpg"):
        (root / name).touch()
    (tmp_path / "secret.jpg").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f.jpg").touch()
    return root


def refusal(folder: ImageFolder, name: str) -> str:
    with pytest.raises(ImageNotFound) as caught:
        folder.find(name)
    return caught.value.reason


@pytest.mark.parametrize("name", ["a.jpg", "b, c.jpg", "sub/d.jpg", "sub/deep/e.jpg"])
def test_images_are_found(images: Path, name: str) -> None:
    path = str(images / name)
    assert ImageFolder(images).find(name) == (name, path, name)


def test_two_spellings_of_a_file_are_one_image(images: Path) -> None:
    (images / unicodedata.normalize("NFD", "é.jpg")).touch()
    folder = ImageFolder(images)
    assert folder.find("./a.jpg") == folder.find("a.jpg")
    assert folder.find("sub//./d.jpg") == folder.find("sub/d.jpg")
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    assert folder.find(composed) == folder.find(decomposed)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.jpg", "no image"),
        ("nowhere/a.jpg", "no image"),
        ("a.jpg/b.jpg", "no image"),
        ("folder.jpg", "no image"),
        ("x" * 5000 + "/a.jpg", "no image"),
        ("", "no file name"),
        ("./", "no file name"),
        ("..", "outside the image folder"),
        ("../secret.jpg", "outside the image folder"),
        ("sub/../../secret.jpg", "outside the image folder"),
        ("..\\secret.jpg", "outside the image folder"),
        ("C:\\secret.jpg", "outside the image folder"),
        ("/etc/passwd", "outside the image folder"),
        ("a.jpg\x00.png", "unprintable file name"),
        ("a\n.jpg", "unprintable file name"),
        ("a\udcff.jpg", "unprintable file name"),
    ],
)
def test_names_that_give_no_image(images: Path, name: str, reason: str) -> None:
    assert refusal(ImageFolder(images), name) == reason


def test_absolute_paths_are_refused_even_inside(images: Path) -> None:
    assert refusal(ImageFolder(images), str(images / "a.jpg")) == "outside the image folder"


def test_links_are_followed_wherever_they_lead(images: Path) -> None:
    (images / "out.jpg").symlink_to("../secret.jpg")
    (images / "nothing.jpg").symlink_to("gone.jpg")
    (images / "linked").symlink_to(images.parent / "outside")
    folder = ImageFolder(images)
    assert folder.find("out.jpg") == ("out.jpg", str(images.parent / "secret.jpg"), "out.jpg")
    assert folder.find("linked/f.jpg")[1] == str(images.parent / "outside" / "f.jpg")
    assert refusal(folder, "nothing.jpg") == "no image"


def test_links_to_one_target_share_a_group(images: Path) -> None:
    for name in ("one.jpg", "two.jpg"):
        (images / name).symlink_to("../secret.jpg")
    folder = ImageFolder(images)
    assert folder.find("one.jpg")[2] == folder.find("two.jpg")[2]


def test_a_loop_of_links_ends(images: Path) -> None:
    (images / "loop").symlink_to(images)
    assert ImageFolder(images).find("D.jpg")[0] == "sub/d.jpg"


def test_a_link_inside_has_the_group_of_its_target(images: Path) -> None:
    """Else one image could stand in the train and in the test part under two names."""
    (images / "again.jpg").symlink_to("sub/d.jpg")
    assert ImageFolder(images).find("again.jpg") == (
        "again.jpg",
        str(images / "sub" / "d.jpg"),
        "sub/d.jpg",
    )


def test_the_folder_itself_may_be_a_link(images: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(images)
    assert ImageFolder(tmp_path / "elsewhere").find("a.jpg")[1] == str(images / "a.jpg")


def test_pipes_are_no_images(images: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in folders here")
    os.mkfifo(images / "pipe.jpg")  # opening it would hang for ever
    assert refusal(ImageFolder(images), "pipe.jpg") == "no image"


def test_a_missing_folder_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "Flickr8k").mkdir()
    with pytest.raises(UserError, match=r"key='.*flikr8k' does not exist \(did you mean '.*Flickr8k'\?\)"):
        find_folder("key", tmp_path / "flikr8k", "a folder")
    with pytest.raises(UserError, match=r"does not exist \(did you mean '.*Flickr8k'\?\)"):
        find_folder("key", tmp_path / "flickr8" / "Images", "a folder")


def test_a_folder_that_is_a_file_or_impossible(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; expected a folder"):
        find_folder("key", tmp_path / "file", "a folder")
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(UserError, match=r"^key=.*; expected a folder; set key=\.\.\.$"):
            find_folder("key", tmp_path / name, "a folder")


def test_a_folder_that_vanished(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone' cannot be listed"):
        ImageFolder(tmp_path / "gone").find("a.jpg")


@settings(deadline=20_000)
@given(st.text(max_size=20))
@example("\x00/..\\")
def test_any_name_stays_inside_or_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    (root / "a.jpg").touch()
    try:
        image_id, path, _ = ImageFolder(root).find(name)
    except ImageNotFound:
        return
    assert (image_id, path) == ("a.jpg", str(root / "a.jpg"))
