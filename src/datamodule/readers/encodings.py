"""Read text files of unknown encoding and clean captions."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from src.utils.errors import UserError
from src.utils.logging import get_logger, visible

log = get_logger(__name__)

# UTF-32's mark begins with UTF-16's: longest first.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes that are not UTF-8
# Control characters, lone surrogates, byte-order marks, non-characters: no file or terminal takes them.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8, UTF-16 or UTF-32 file with its byte-order mark; they end in LF, CRLF or CR.

    Bytes that are not UTF-8 are read as Windows-1252. UserError where the file cannot be read.
    """
    num_foreign = 0
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8-sig")
        errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
        with open(path, encoding=encoding, errors=errors) as lines:
            for line in lines:
                western = ESCAPED_BYTE.sub(_as_western, line)
                num_foreign += western != line
                yield western.removesuffix("\n")
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({error.strerror or error}); expected a readable text file; "
            "check its name and permissions"
        ) from error
    if num_foreign:
        log.warning("%s: %d lines are not UTF-8; read as Windows-1252", path.name, num_foreign)


def _as_western(found: re.Match[str]) -> str:
    byte = found[0].encode("utf-8", "surrogateescape")
    return byte.decode("cp1252", "ignore") or byte.decode("latin-1")


def clean_caption(text: str) -> str:
    """Return the caption with unprintable characters and runs of whitespace each turned into one blank."""
    return " ".join(UNPRINTABLE.sub(" ", text).split())


def printable(text: str, limit: int = 200) -> str:
    """Return `text` for lists and messages: unprintable characters as \\x00 or \\udcff, cut after `limit`."""
    return visible(text if len(text) <= limit else f"{text[:limit]}...")
