"""The layouts of captions files that Flickr8k and Flickr30k are passed around in, read row by row.

| layout | first line or rows | where it comes from |
|---|---|---|
| csv | `image,caption`, csv quoting | Kaggle's captions.txt |
| pipe | `image_name| comment_number| comment`, no quoting | results.csv |
| token | `name.jpg#0<TAB>caption`, no header, no quoting | Flickr8k.token.txt, results_20130124.token |
| json | `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}` | Karpathy's dataset_flickr30k.json |
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from src.datamodule.readers.encodings import printable, read_lines
from src.utils.errors import UserError

CSV_HEADER = re.compile(r'\s*"?image"?\s*,\s*"?caption"?\s*', re.IGNORECASE)
PIPE_HEADER = re.compile(r"\s*image_name\s*\|\s*comment_number\s*\|\s*comment\s*", re.IGNORECASE)
TOKEN_ROW = re.compile(r"([^\t]+)#\d+ *\t(.*)")
# One row of the well-known results.csv has no delimiter after its number: "2199200615.jpg| 4   A dog runs".
GLUED = re.compile(r"\s*\d+\s+(\S.*)")
CSV_ROW = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*)),(.*)', re.DOTALL)
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
ROW_START = re.compile(r'"?[^",]+\.(?:jpe?g|png|gif|bmp|tiff?|webp)"?,', re.IGNORECASE)
MAX_LINES_OF_A_CAPTION = 20
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
EXPECTED = (
    "expected the header 'image,caption' or 'image_name| comment_number| comment', "
    "or rows like 'name.jpg#0<TAB>caption'"
)


@dataclass(frozen=True, slots=True)
class RawRow:
    """One image-caption pair as the file has it, unchecked; `fault` says why it is none, else "".

    line: in the file, from 1; in json the place of the image in its list.
    """

    line: int
    name: str
    caption: str
    fault: str = ""
    split: str | None = None


def read_rows(path: Path) -> list[RawRow]:
    """All rows of a captions file; the layout is told by its first line, json by the file's ending.

    Raises:
        UserError: the file cannot be read, is empty, has no row, or its layout is none of the four.
    """
    if path.suffix.lower() == ".json":
        rows = list(_json_rows(path))
    else:
        lines = read_lines(path)
        first = next((number for number, line in enumerate(lines) if line.strip("\x00 \t")), None)
        if first is None:
            raise UserError(
                f"{str(path)!r} is empty; {EXPECTED}; download it again or name another captions file"
            )
        if CSV_HEADER.fullmatch(lines[first]):
            rows = list(_csv_rows(lines, first + 1))
        elif PIPE_HEADER.fullmatch(lines[first]):
            rows = list(_pipe_rows(lines, first + 1))
        elif TOKEN_ROW.fullmatch(lines[first]):
            rows = list(_token_rows(lines, first))
        else:
            raise UserError(
                f"{str(path)!r} begins with {printable(lines[first], 60)!r}; {EXPECTED}; "
                "mend its first line or set datamodule.captions_file=..."
            )
    if not rows:
        raise UserError(
            f"{str(path)!r} has a header and no captions; expected a row for each caption; "
            "download it again or name another captions file"
        )
    return rows


def _csv_rows(lines: list[str], start: int) -> Iterator[RawRow]:
    """Rows of the csv layout; without quotes all that follows the first comma is caption."""
    at = start
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        if '"' not in line:
            if line.strip():
                name, comma, caption = line.partition(",")
                yield RawRow(number, name.strip(), caption, "" if comma else "malformed line")
            continue
        row = _csv_row(line.lstrip(), number)
        # Csv lets a quoted caption run over lines. A quote that never closes must not swallow the rows after
        # it: the search ends at the next line that begins like a row.
        text, ahead = line.lstrip(), at
        while row.fault == "unclosed quote" and ahead < min(len(lines), number - 1 + MAX_LINES_OF_A_CAPTION):
            if ROW_START.match(lines[ahead].lstrip()):
                break
            text = f"{text}\n{lines[ahead]}"
            ahead += 1
            longer = _csv_row(text, number)
            if not longer.fault:
                row, at = longer, ahead
        yield row


def _csv_row(text: str, number: int) -> RawRow:
    """One csv record of two columns; a quote that is not the first character of a column is a character."""
    found = CSV_ROW.fullmatch(text)
    if found is None:
        return RawRow(number, "", text, "unclosed quote" if text.count('"') % 2 else "malformed line")
    quoted_name, name, caption = found.groups()
    name = name.strip() if quoted_name is None else quoted_name.replace('""', '"')
    quoted = QUOTED.fullmatch(caption.strip())
    if quoted:
        return RawRow(number, name, quoted[1].replace('""', '"'))
    if caption.startswith('"'):
        return RawRow(number, name, caption, "unclosed quote" if caption.count('"') % 2 else "malformed line")
    return RawRow(number, name, caption)


def _pipe_rows(lines: list[str], start: int) -> Iterator[RawRow]:
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip():
            continue
        name, *rest = line.split("|", 2)
        if len(rest) == 2 and rest[0].strip().isdigit():
            yield RawRow(number, name.strip(), rest[1])
        elif len(rest) == 1 and (glued := GLUED.fullmatch(rest[0])):
            yield RawRow(number, name.strip(), glued[1])
        else:
            yield RawRow(number, name.strip(), "|".join(rest), "malformed line")


def _token_rows(lines: list[str], start: int) -> Iterator[RawRow]:
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip():
            continue
        found = TOKEN_ROW.fullmatch(line)
        if found:
            yield RawRow(number, found[1].strip(), found[2])
        else:
            yield RawRow(number, line.partition("\t")[0], "", "malformed line")


def _json_rows(path: Path) -> Iterator[RawRow]:
    """Rows of Karpathy's json, with its split ("restval" counts as train).

    Raises:
        UserError: the file is no json or has no list of images.
    """
    try:
        content = json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} is no json ({error}); expected Karpathy's dataset_flickr8k.json or "
            "dataset_flickr30k.json; download it again"
        ) from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise UserError(
            f"{str(path)!r} has no list 'images'; expected Karpathy's dataset_flickr8k.json or "
            "dataset_flickr30k.json; set datamodule.karpathy_json=..."
        )
    for number, image in enumerate(images, 1):
        yield from _json_image(number, image if isinstance(image, dict) else {})


def _json_image(number: int, image: dict[str, object]) -> Iterator[RawRow]:
    name, sentences = image.get("filename"), image.get("sentences")
    split = KARPATHY_SPLITS.get(str(image.get("split")))
    if not isinstance(name, str) or not isinstance(sentences, list) or split is None:
        yield RawRow(number, str(name), "", "malformed line")
        return
    for sentence in sentences or [{"raw": ""}]:
        raw = sentence.get("raw") if isinstance(sentence, dict) else None
        yield RawRow(number, name, raw if isinstance(raw, str) else "", split=split)
