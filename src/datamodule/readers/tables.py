"""Read the records of a captions file: image name and caption, whatever the format.

No csv module: captions have commas without quotes, and quotes that never close, which must swallow no other row.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.datamodule.readers.encodings import read_lines
from src.utils.errors import UserError

QUOTED = r'"(?:[^"]|"")*"'
CSV_ROW = re.compile(rf'\A(?P<name>{QUOTED}|[^",]*),(?P<caption>\s*{QUOTED}\s*|(?!").*)\Z', re.DOTALL)
# One known row of results.csv lacks its second "|".
PIPE_ROW = re.compile(r"\A(?P<name>[^|]*)\|(?:\s*\d+\s*\||\s*\d+\s+(?=[^\s|][^|]*\Z))(?P<caption>.*)\Z")
TOKEN_ROW = re.compile(r"\A(?P<name>[^\t]+)#\d+ *\t(?P<caption>.*)\Z")
FORMATS = {  # delimiter -> first line, row
    # Kaggle's captions.txt: `image,caption`, csv quoting
    ",": (re.compile(r'\s*"?image"?\s*,\s*"?caption"?\s*', re.IGNORECASE), CSV_ROW),
    # results.csv: `image_name| comment_number| comment`, no quoting
    "|": (re.compile(r"\s*image_name\s*\|\s*comment_number\s*\|\s*comment\s*", re.IGNORECASE), PIPE_ROW),
    # Flickr8k.token.txt, results_20130124.token: `name.jpg#0<TAB>caption`, no header, no quoting
    "\t": (TOKEN_ROW, TOKEN_ROW),
}
CSV_ROW_START = re.compile(r'"?[^",]+\.(?:jpe?g|png|gif|bmp|tiff?|webp)"?,', re.IGNORECASE)
MAX_CAPTION_LINES = 20
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


class Record(NamedTuple):
    """One image-caption pair as the file has it, unchecked."""

    line: int  # in the file, from 1; in json the position of the image in its list
    name: str
    caption: str
    error: str = ""  # why it is no pair
    split: str | None = None


def read_records(path: Path) -> list[Record]:
    """Read all records of a captions file; the format follows from its first line, json from the extension.

    UserError where the file cannot be read, has no row, or has none of the four formats.
    """
    records = list(_read_json(path) if path.suffix.lower() == ".json" else _read_rows(path))
    if not records:
        raise UserError(f"{str(path)!r} has no captions; expected a row for each caption; name another captions file")
    return records


def _read_rows(path: Path) -> Iterator[Record]:
    lines = dict(enumerate(read_lines(path), 1))
    first = next((number for number, line in lines.items() if line.strip("\x00 \t")), 0)
    head = lines.get(first, "")
    delimiter = next((mark for mark, (pattern, _) in FORMATS.items() if pattern.fullmatch(head)), None)
    if delimiter is None:
        raise UserError(
            f"{str(path)!r} begins with {head[:60]!r}; expected 'image,caption', 'image_name| comment_number| "
            "comment' or rows like 'name.jpg#0<TAB>caption'; correct it or set datamodule.captions_file=..."
        )
    if delimiter == ",":
        _join_quoted(lines)
    unquote = _unquote if delimiter == "," else str.strip
    for number, line in lines.items():
        if number < first + (delimiter != "\t") or not line.strip("\x00 \t"):
            continue
        found, error = FORMATS[delimiter][1].match(line.lstrip()), ""
        name, _, caption = line.partition(delimiter)
        if found:
            name, caption = found["name"], found["caption"]
        else:
            error = "unclosed quote" if delimiter == "," and line.count('"') % 2 else "malformed line"
        yield Record(number, unquote(name), unquote(caption), error)


def _join_quoted(lines: dict[int, str]) -> None:
    """Join the lines of a quoted caption, in place; one that does not close before the next row stays as it is."""
    for start in [number for number, line in lines.items() if line.count('"') % 2]:
        text = lines.get(start, "").lstrip()
        ends = range(start + 1, start + MAX_CAPTION_LINES)
        for end in ends if start in lines and not CSV_ROW.match(text) else ():
            if end not in lines or CSV_ROW_START.match(lines[end].lstrip()):
                break
            text = f"{text}\n{lines[end]}"
            if '"' in lines[end] and CSV_ROW.match(text):
                lines[start] = text
                for number in range(start + 1, end + 1):
                    del lines[number]
                break


def _unquote(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1].replace('""', '"') if re.fullmatch(QUOTED, cell) else cell


def _read_json(path: Path) -> Iterator[Record]:
    """Read Karpathy's json: `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}`."""
    content, problem = None, "has no list 'images'"
    try:
        content = json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        problem = f"is no json ({error})"
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(content, dict) and "annotations" in content:
        images, problem = None, "is a COCO captions file, which is not read yet"
    if not isinstance(images, list):
        raise UserError(
            f"{str(path)!r} {problem}; expected Karpathy's dataset_flickr8k.json or dataset_flickr30k.json, or rows "
            "'image,caption'; set datamodule.captions_file=..."
        )
    for number, image in enumerate(images, 1):
        fields = image if isinstance(image, dict) else {}
        name, sentences = fields.get("filename"), fields.get("sentences")
        split = KARPATHY_SPLITS.get(str(fields.get("split")), "")
        fault = "" if isinstance(name, str) and isinstance(sentences, list) and split else "malformed line"
        for sentence in sentences if isinstance(sentences, list) and sentences else [None]:
            text = sentence.get("raw") if isinstance(sentence, dict) else None
            yield Record(number, str(name), text if isinstance(text, str) else "", fault, split)
