"""Images looked up by the names of captions files; some names are hostile."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from src.datamodule.readers.files import ImageFolder, ImageNotFound, find_path
from src.utils.errors import UserError


def image_folder(root: Path) -> ImageFolder:
    return ImageFolder(root.parent, root.name)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "Images"
    for name in ("a.jpg", "b, c.jpg", "sub/d.jpg", "sub/deep/e.jpg", "folder.jpg/x", "../outside/f.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "secret.jpg").touch()
    return root


def test_two_spellings_of_a_file_are_one_image(images: Path) -> None:
    (images / unicodedata.normalize("NFD", "é.jpg")).touch()
    folder = image_folder(images)
    assert folder.find("./a.jpg") == folder.find("a.jpg")
    assert folder.find("sub//./d.jpg") == folder.find("sub/d.jpg")
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    assert folder.find(composed) == folder.find(decomposed)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        *((name, name) for name in ("a.jpg", "b, c.jpg", "sub/d.jpg", "sub/deep/e.jpg")),
        *((name, "a.jpg") for name in ("A.JPG", "a", "Images/a.jpg")),
        *((name, "sub/d.jpg") for name in ("sub\\d.jpg", "d.jpg", "IMAGES/SUB/D", "./Sub/d.JPG")),
    ],
)
def test_names_are_found_exactly_or_nearly(images: Path, name: str, image_id: str) -> None:
    assert image_folder(images).find(name) == (image_id, str(images / image_id), image_id)


def test_a_bare_name_of_two_files_names_both(images: Path) -> None:
    (images / "sub" / "a2").mkdir()
    (images / "sub" / "a2" / "d.jpg").touch()
    with pytest.raises(ImageNotFound, match=r"ambiguous image name: D: sub/a2/d\.jpg or sub/d\.jpg"):
        image_folder(images).find("D")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "no image") for name in ("gone.jpg", "nowhere/a.jpg", "a.jpg/b.jpg", "folder.jpg", "deep/e.jpg")),
        ("x" * 5000 + "/a.jpg", "no image"),
        *((name, "no file name") for name in ("", "./")),
        *((name, "outside the image folder") for name in ("..", "sub/../../secret.jpg", "..\\secret.jpg")),
        *((name, "outside the image folder") for name in ("C:\\secret.jpg", "/etc/passwd")),
        *((name, "unprintable file name") for name in ("a.jpg\x00.png", "a\n.jpg", "a\udcff.jpg")),
    ],
)
def test_names_that_give_no_image(images: Path, name: str, reason: str) -> None:
    with pytest.raises(ImageNotFound) as caught:
        image_folder(images).find(name)
    assert caught.value.reason == reason


def test_links_are_followed_and_share_the_group_of_their_target(images: Path) -> None:
    """Otherwise one image could be in the train and in the test split under two names."""
    for link, target in {"out": "../secret", "out2": "../secret", "again": "sub/d", "nothing": "gone"}.items():
        (images / f"{link}.jpg").symlink_to(f"{target}.jpg")
    (images / "linked").symlink_to(images.parent / "outside")
    (images / "loop").symlink_to(images)
    folder = image_folder(images)
    assert folder.find("out.jpg") == ("out.jpg", str(images.parent / "secret.jpg"), "out.jpg")
    assert folder.find("out2.jpg")[2] == "out.jpg"
    assert folder.find("again.jpg") == ("again.jpg", str(images / "sub" / "d.jpg"), "sub/d.jpg")
    assert folder.find("linked/f.jpg")[1] == str(images.parent / "outside" / "f.jpg")
    assert folder.find("E.jpg")[0] == "sub/deep/e.jpg"
    with pytest.raises(ImageNotFound, match="no image"):
        folder.find("nothing.jpg")


def test_a_missing_folder_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "Flickr8k").mkdir()
    with pytest.raises(UserError, match=r"data_dir='.*' does not exist \(did you mean '.*Flickr8k'\?\)"):
        find_path("data_dir", tmp_path / "flikr8k", is_dir=True)


@settings(deadline=20_000, max_examples=25)
@given(st.text(max_size=20))
@example("\x00/..\\")
def test_any_name_stays_inside_or_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    (root / "a.jpg").touch()
    try:
        image_id, path, _ = image_folder(root).find(name)
    except ImageNotFound:
        return
    assert (image_id, path) == ("a.jpg", str(root / "a.jpg"))
