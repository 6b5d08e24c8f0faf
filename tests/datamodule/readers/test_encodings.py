"""Lines of files of unknown encoding, and captions cleaned of control characters."""

from pathlib import Path

import pytest

from src.datamodule.readers.files import clean_caption, printable, read_lines
from src.utils.errors import UserError

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
