"""Read the records of a captions file: image name and caption, whatever the format.

| format | first line or rows | source |
|---|---|---|
| csv | `image,caption`, csv quoting | Kaggle's captions.txt |
| pipe | `image_name| comment_number| comment`, no quoting | results.csv |
| token | `name.jpg#0<TAB>caption`, no header, no quoting | Flickr8k.token.txt, results_20130124.token |
| json | `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}` | Karpathy's dataset_flickr30k.json |

The csv of these data sets is not what a csv parser expects: captions have commas without quotes, quotes inside, and
quotes that never close, which must not swallow the rows after them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.datamodule.readers.encodings import printable, read_lines
from src.utils.errors import UserError

CSV_HEADER = re.compile(r'\s*"?image"?\s*,\s*"?caption"?\s*', re.IGNORECASE)
PIPE_HEADER = re.compile(r"\s*image_name\s*\|\s*comment_number\s*\|\s*comment\s*", re.IGNORECASE)
PIPE_ROW = re.compile(
    r"([^|]*)\|(?:\s*\d+\s*\||\s*\d+\s+(?=[^\s|][^|]*$))(.*)"
)  # one known row lacks its 2nd "|"
TOKEN_ROW = re.compile(r"([^\t]+)#\d+ *\t(.*)")
CSV_ROW = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*)),(.*)', re.DOTALL)
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
ROW_START = re.compile(r'"?[^",]+\.(?:jpe?g|png|gif|bmp|tiff?|webp)"?,', re.IGNORECASE)
MAX_CAPTION_LINES = 20
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
KARPATHY = "Karpathy's dataset_flickr8k.json or dataset_flickr30k.json"
EXPECTED = (
    "expected the header 'image,caption' or 'image_name| comment_number| comment', "
    "or rows like 'name.jpg#0<TAB>caption'"
)


@dataclass(frozen=True, slots=True)
class Record:
    """One image-caption pair as the file has it, unchecked; `error` says why it is none, else "".

    line: in the file, from 1; in json the position of the image in its list.
    """

    line: int
    name: str
    caption: str
    error: str = ""
    split: str | None = None


def read_records(path: Path) -> list[Record]:
    """Read all records of a captions file; the format follows from its first line, json from the extension.

    Raises:
        UserError: the file cannot be read, is empty, has no row, or has none of the four formats.
    """
    if path.suffix.lower() == ".json":
        records = list(_json_records(path))
    else:
        lines = read_lines(path)
        first = next((number for number, line in enumerate(lines) if line.strip("\x00 \t")), None)
        if first is None:
            raise UserError(
                f"{str(path)!r} is empty; {EXPECTED}; download it again or name another captions file"
            )
        if CSV_HEADER.fullmatch(lines[first]):
            records = list(_csv_records(lines, first + 1))
        elif PIPE_HEADER.fullmatch(lines[first]):
            records = list(_line_records(lines, first + 1, PIPE_ROW, "|"))
        elif TOKEN_ROW.fullmatch(lines[first]):
            records = list(_line_records(lines, first, TOKEN_ROW, "\t"))
        else:
            raise UserError(
                f"{str(path)!r} begins with {printable(lines[first], 60)!r}; {EXPECTED}; "
                "correct its first line or set datamodule.captions_file=..."
            )
    if not records:
        raise UserError(
            f"{str(path)!r} has no captions; expected a row for each caption; "
            "download it again or name another captions file"
        )
    return records


def _csv_records(lines: Sequence[str], start: int) -> Iterator[Record]:
    """Records of the csv format; without quotes all that follows the first comma is caption."""
    at = start
    while at < len(lines):
        text, number = lines[at], at + 1
        at += 1
        if '"' not in text:
            if text.strip():
                name, comma, caption = text.partition(",")
                yield Record(number, name.strip(), caption, "" if comma else "malformed line")
            continue
        text = text.lstrip()  # not by the patterns: they would take quadratic time on blanks
        record = _csv_record(text, number)
        # A quoted caption may run over several lines. The search for its end stops at the next line that begins like
        # a row.
        ahead = at
        while record.error == "unclosed quote" and ahead < min(len(lines), number - 1 + MAX_CAPTION_LINES):
            if ROW_START.match(lines[ahead].lstrip()):
                break
            text = f"{text}\n{lines[ahead]}"
            ahead += 1
            longer = _csv_record(text, number)
            if not longer.error:
                record, at = longer, ahead
        yield record


def _csv_record(text: str, number: int) -> Record:
    """One csv record of two columns; a quote that is not the first character of a column is a character."""
    found = CSV_ROW.fullmatch(text)
    error = "unclosed quote" if text.count('"') % 2 else "malformed line"
    if found is None:
        return Record(number, "", text, error)
    quoted_name, name, caption = found.groups()
    name = name.strip() if quoted_name is None else quoted_name.replace('""', '"')
    quoted = QUOTED.fullmatch(caption.strip())
    if quoted:
        return Record(number, name, quoted[1].replace('""', '"'))
    return Record(number, name, caption, error if caption.startswith('"') else "")


def _line_records(lines: Sequence[str], start: int, row: re.Pattern[str], delimiter: str) -> Iterator[Record]:
    """Records of a format with one record per line and without quoting."""
    for number, line in enumerate(lines[start:], start + 1):
        found = row.fullmatch(line)
        if found:
            yield Record(number, found[1].strip(), found[2])
        elif line.strip():
            name, _, rest = line.partition(delimiter)
            yield Record(number, name.strip(), rest, "malformed line")


def _json_records(path: Path) -> Iterator[Record]:
    """Records of Karpathy's json, with its split ("restval" counts as train).

    Raises:
        UserError: the file is no json, COCO's captions json, or has no list of images.
    """
    try:
        content = json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} is no json ({error}); expected {KARPATHY}; download it again"
        ) from error
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list) and isinstance(content.get("annotations"), list):
        raise UserError(
            f"{str(path)!r} is a COCO captions file, which is not read yet; expected {KARPATHY}, or a captions file; "
            "write its pairs as rows 'image,caption' into captions.txt"
        )
    if not isinstance(images, list):
        raise UserError(
            f"{str(path)!r} has no list 'images'; expected {KARPATHY}; set datamodule.karpathy_json=..."
        )
    for number, image in enumerate(images, 1):
        yield from _json_image(number, image if isinstance(image, dict) else {})


def _json_image(number: int, image: dict[str, Any]) -> Iterator[Record]:
    name, sentences = image.get("filename"), image.get("sentences")
    split = KARPATHY_SPLITS.get(str(image.get("split")))
    if not isinstance(name, str) or not isinstance(sentences, list) or split is None:
        yield Record(number, str(name), "", "malformed line")
        return
    for sentence in sentences or [{"raw": ""}]:
        raw = sentence.get("raw") if isinstance(sentence, dict) else None
        yield Record(number, name, raw if isinstance(raw, str) else "", split=split)
