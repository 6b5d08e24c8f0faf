"""Lines of a text file of unknown encoding, and captions cleaned of what no caption holds."""

import re
from collections.abc import Iterator
from pathlib import Path

from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

# UTF-32's mark begins with UTF-16's: longest first.
MARKS = {
    b"\xff\xfe\x00\x00": "utf-32-le",
    b"\x00\x00\xfe\xff": "utf-32-be",
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
    b"\xef\xbb\xbf": "utf-8",
}
# Not splitlines(), which also cuts at U+2028 and at form feeds inside captions.
LINE_END = re.compile(r"\r\n|\n|\r")
# Control characters, lone surrogates, byte-order marks, non-characters: no file or terminal takes them.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")


def read_lines(path: Path) -> list[str]:
    """All lines of a text file without their ends, in UTF-8, UTF-16 or UTF-32 with or without a mark.

    Lines that are not UTF-8 are taken as Windows-1252, else Latin-1, each by itself: one odd byte does not
    spoil the rest of the file. A line ends in LF, CRLF or CR.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    encoding, start = _encoding(data)
    if encoding != "utf-8":
        return LINE_END.split(data[start:].decode(encoding, "replace"))
    lines, foreign = [], 0
    for piece in data[start:].split(b"\n"):
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            text, foreign = _decode_western(piece), foreign + 1
        # Split at LF above, so a CR that ends a piece belongs to a CRLF; any other one ends a line by itself.
        lines.extend(text.removesuffix("\r").split("\r") if "\r" in text else [text])
    if foreign:
        log.warning("%s: %d lines are not UTF-8; read as Windows-1252", path.name, foreign)
    return lines


def stream_lines(path: Path) -> Iterator[str]:
    """As `read_lines`, one line at a time, for files too large to hold; lines end in LF or CRLF only.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            if _encoding(file.read(4))[0] == "utf-8":
                file.seek(0)
                for number, piece in enumerate(file):
                    piece = piece.removeprefix(b"\xef\xbb\xbf") if number == 0 else piece
                    try:
                        yield piece.decode().rstrip("\r\n")
                    except UnicodeDecodeError:
                        yield _decode_western(piece).rstrip("\r\n")
                return
    except OSError as error:
        raise _unreadable(path, error) from error
    yield from read_lines(path)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{str(path)!r} cannot be read ({error.strerror or error}); expected a readable text file; "
        "check its name and permissions"
    )


def _encoding(data: bytes) -> tuple[str, int]:
    """Encoding and length of the mark; UTF-16 without one shows in the zero half of its first letter."""
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return encoding, len(mark)
    if len(data) >= 4 and data[1] == data[3] == 0 and data[0] and data[2]:
        return "utf-16-le", 0
    if len(data) >= 4 and data[0] == data[2] == 0 and data[1] and data[3]:
        return "utf-16-be", 0
    return "utf-8", 0


def _decode_western(piece: bytes) -> str:
    try:
        return piece.decode("cp1252")
    except UnicodeDecodeError:
        return piece.decode("latin-1")


def clean_caption(text: str) -> str:
    """The caption with unprintable characters and runs of whitespace each turned into one blank."""
    return " ".join(UNPRINTABLE.sub(" ", text).split())


def printable(text: str, limit: int = 200) -> str:
    """`text` for logs and lists of faults: unprintable characters as \\x00 or \\udcff, cut after `limit`."""
    text = text if len(text) <= limit else f"{text[:limit]}..."
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
