"""Images looked up by the names of captions files, some hostile; lines of unknown encoding; cleaned captions."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from src.datamodule.readers.files import ImageFolder, ImageNotFound, clean_caption, printable, read_lines
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


# Lines and captions

TEXT = "image,caption\u2028\na.jpg,Ein Hund läuft 🐕 .\nb.jpg,كلب يجري"


def lines(tmp_path: Path, data: bytes) -> list[str]:
    (tmp_path / "captions.txt").write_bytes(data)
    return list(read_lines(tmp_path / "captions.txt"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "BE"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    text = TEXT.replace("\n", end)
    data = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "BE" else text.encode(encoding)
    assert lines(tmp_path, data) == TEXT.split("\n")


def test_bytes_that_are_not_utf8_are_western(tmp_path: Path) -> None:
    data = "a 🐕\n".encode() + "café “x”\n".encode("cp1252") + b"undefined \x81"
    assert lines(tmp_path, data) == ["a 🐕", "café “x”", "undefined \x81"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt' cannot be read"):
        list(read_lines(tmp_path / "gone.txt"))


def test_captions_lose_control_characters_and_keep_scripts() -> None:
    assert clean_caption(" A\x00dog\t\r\n runs\x1b[31m \ufeff.\ud800 ") == "A dog runs [31m ."
    assert clean_caption("👩‍👧 כלב רץ") == "👩‍👧 כלב רץ"
    assert clean_caption("\x00 \u3000\u2028") == ""


def test_printable_escapes_what_would_act_on_a_terminal() -> None:
    assert printable("a\x1b[31m\nb\udcff") == r"a\x1b[31m\nb\udcff"
    assert printable("x" * 300) == "x" * 200 + "..."
