"""Names in captions files, asked of a folder; some are hostile."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from src.datamodule.readers.image_folder import PictureFolder, PictureRefused, find_folder
from src.utils.errors import UserError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "Images"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "folder.jpg").mkdir()
    for name in ("a.jpg", "b, c.jpg", "sub/d.jpg", "sub/deep/e.jpg"):
        (root / name).touch()
    (tmp_path / "secret.jpg").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f.jpg").touch()
    return root


def refusal(folder: PictureFolder, name: str) -> str:
    with pytest.raises(PictureRefused) as caught:
        folder.find(name)
    return caught.value.reason


@pytest.mark.parametrize("name", ["a.jpg", "b, c.jpg", "sub/d.jpg", "sub/deep/e.jpg"])
def test_pictures_are_found(pictures: Path, name: str) -> None:
    path = str(pictures / name)
    assert PictureFolder(pictures).find(name) == (name, path, name)


def test_two_spellings_of_a_file_are_one_image(pictures: Path) -> None:
    (pictures / unicodedata.normalize("NFD", "é.jpg")).touch()
    folder = PictureFolder(pictures)
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
def test_names_that_give_no_picture(pictures: Path, name: str, reason: str) -> None:
    assert refusal(PictureFolder(pictures), name) == reason


def test_absolute_paths_are_refused_even_inside(pictures: Path) -> None:
    assert refusal(PictureFolder(pictures), str(pictures / "a.jpg")) == "outside the image folder"


def test_links_may_not_lead_out(pictures: Path) -> None:
    (pictures / "out.jpg").symlink_to("../secret.jpg")
    (pictures / "nothing.jpg").symlink_to("gone.jpg")
    (pictures / "linked").symlink_to(pictures.parent / "outside")
    folder = PictureFolder(pictures)
    assert refusal(folder, "out.jpg") == "outside the image folder"
    assert refusal(folder, "nothing.jpg") == "no image"
    assert refusal(folder, "linked/f.jpg") == "no image"


def test_a_link_inside_has_the_group_of_its_target(pictures: Path) -> None:
    """Else one picture could stand in the train and in the test part under two names."""
    (pictures / "again.jpg").symlink_to("sub/d.jpg")
    assert PictureFolder(pictures).find("again.jpg") == (
        "again.jpg",
        str(pictures / "sub" / "d.jpg"),
        "sub/d.jpg",
    )


def test_the_folder_itself_may_be_a_link(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(pictures)
    assert PictureFolder(tmp_path / "elsewhere").find("a.jpg")[1] == str(pictures / "a.jpg")


def test_pipes_are_no_pictures(pictures: Path) -> None:
    os.mkfifo(pictures / "pipe.jpg")  # opening it would hang for ever
    assert refusal(PictureFolder(pictures), "pipe.jpg") == "no image"


def test_one_listing_answers_many_questions(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: calls.append(path) or scandir(path))
    folder = PictureFolder(pictures)
    for _ in range(100):
        folder.find("a.jpg")
        folder.find("sub/d.jpg")
    assert len(calls) == 2


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
        PictureFolder(tmp_path / "gone").find("a.jpg")


@settings(deadline=20_000)
@given(st.text(max_size=20))
@example("\x00/..\\")
def test_any_name_stays_inside_or_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        image_id, path, _ = PictureFolder(root).find(name)
    except PictureRefused:
        return
    assert os.path.realpath(path).startswith(f"{root}{os.sep}")
    assert ".." not in image_id.split("/")
