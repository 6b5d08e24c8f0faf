"""Read tables of image names and captions as records: csv, tsv and the like; choose the columns of any table.

Lines are parsed one by one: captions have commas without quotes, and quotes that never close must swallow no other row.
"""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from src.datamodule.readers.files import SPLITS, read_lines
from src.datamodule.readers.records import Embedded, Record
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
TOKEN_ROW = re.compile(r"([^\t]+)#\d+ *\t(.*)")  # Flickr8k.token.txt: name.jpg#0<TAB>caption
ROW_START = re.compile(r'"?[^",;|\t]+\.(?:jpe?g|png|gif|bmp|tiff?|webp)"?[,;|\t]', re.IGNORECASE)
CAPTION = re.compile("caption|text|desc|comment|sentence|report|title", re.IGNORECASE)
MAX_CAPTION_LINES = 20
IMAGE_COLUMNS = ("file_name", "filename", "image", "image_name", "image_path", "path", "file", "img", "image_id", "id")
CAPTION_COLUMNS = ("caption", "text", "description", "sentence", "comment", "report", "title")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
SAMPLE_ROWS = 50  # that tell what a column holds


def read_delimited(path: Path, is_image: Callable[[str], bool]) -> list[Record]:
    """Read delimited lines; the first names the columns, which are "image" and "caption" where it begins with an image.

    The delimiter is the first of tab, "|", ";" and "," in the first line. UserError where the file cannot be read.
    """
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip("\x00 \t")]
    if not lines:
        return []
    head, columns, delimiter, has_caption_last = lines[0][1], ["image", "caption"], "#", True
    if not TOKEN_ROW.fullmatch(head):
        delimiter = next((mark for mark in "\t|;," if mark in head), ",")
        columns = [cell.strip() for cell in next(csv.reader([head], delimiter=delimiter, skipinitialspace=True))]
        if len(columns) < 2:
            problem = f"{str(path)!r} begins with {head[:60]!r}; expected columns, such as image,caption"
            raise UserError(f"{problem}; correct it or set datamodule.captions_file=...")
        image = next((k for k, cell in enumerate(columns) if not cell.isdigit() and is_image(cell)), None)
        if image is not None:  # no header; a number may stand before or behind the image
            numbers = [str(k) for k, cell in enumerate(columns[image + 1 : image + 2]) if cell.isdigit()]
            columns = [*(f"column {k}" for k in range(image)), "image", *numbers, "caption"]
        lines = lines[image is None :]
        has_caption_last = len(columns) == 2 or bool(CAPTION.search(columns[-1]))
    split = partial(_split, delimiter=delimiter, count=len(columns), has_caption_last=has_caption_last)
    records, end = [], 0
    for k, (number, line) in enumerate(lines):
        if k >= end:
            cells, end = _join([text for _, text in lines[k : k + MAX_CAPTION_LINES]], split, k + 1)
            error = "" if cells else "unclosed quote" if line.count('"') % 2 else "malformed line"
            records.append(Record(number, dict(zip(columns, cells, strict=True)) if cells else {"": line}, error))
    return records


def _split(line: str, delimiter: str, count: int, has_caption_last: bool) -> Sequence[str] | None:
    """Return the cells of a line; surplus delimiters belong to a caption that is last; None where it is malformed."""
    if delimiter == "#":
        return (found := TOKEN_ROW.fullmatch(line)) and found.groups()
    line = line.strip("\x00 ") if delimiter != "\t" else line
    plain, cells = line.split(delimiter, count - 1), []
    with suppress(csv.Error):
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
    if len(cells) == count:
        return cells
    if delimiter == "|" and len(plain) == count - 1 and (number := re.match(r"\s*(\d+)\s+(?=\S)", plain[-1])):
        return [*plain[:-1], number[1], plain[-1][number.end() :]]  # a known row of results.csv lacks its second "|"
    quoted = delimiter == "," and (plain[-1].lstrip()[:1] == '"' or '"' in "".join(plain[:-1]))
    return plain if has_caption_last and len(plain) == count and not quoted else None


def _join(lines: Sequence[str], split: Callable[[str], Any], end: int) -> tuple[Sequence[str] | None, int]:
    """Return the cells of a row and its end; the lines of a quoted caption that closes before a new row are joined."""
    text, cells = lines[0], split(lines[0])
    if cells is None and text.count('"') % 2:
        for used, line in enumerate(lines[1:], 1):
            text = f"{text}\n{line}"
            if ROW_START.match(line.lstrip()):
                break
            if '"' in line and (joined := split(text)):
                return joined, end + used
    return cells, end


class Columns(NamedTuple):
    """Names of the columns that a row is made from; "", [] and None: to be chosen, or none."""

    image: str = ""
    captions: Sequence[str] = ()
    split: str | None = None
    group: str | None = None


def choose_columns(path: Path, records: list[Record], is_image: Callable[[str], bool], given: Columns) -> Columns:
    """Return the columns as given, else by what the first rows hold, else by name. UserError where they do not tell."""
    sample = [record.fields for record in records if not record.error][:SAMPLE_ROWS]
    names = list(dict.fromkeys(name for fields in sample for name in fields))

    def count_images(name: str) -> int:
        cells = [fields.get(name) for fields in sample]
        return sum(isinstance(cell, Embedded) or (isinstance(cell, str) and is_image(cell.strip())) for cell in cells)

    ranks = {name: (-count_images(name), _rank(name, IMAGE_COLUMNS)) for name in names}
    image = given.image or min(names, key=ranks.__getitem__, default="image")
    captions = given.captions or _choose_captions(sample, [name for name in names if name != image])
    absent = [name for name in (given.image, *given.captions, given.split, given.group) if name and name not in names]
    has_images = ranks.get(image, (0, 0)) < (0, len(IMAGE_COLUMNS))
    if sample and (absent or not captions or not has_images):
        problem = "none with captions" if has_images else "none with names of image files"
        problem = f"but none is {absent[0]!r}" if absent else problem
        expected = "expected image files and captions; set datamodule.image_column, caption_columns, images_dir, ..."
        raise UserError(f"{str(path)!r} has the columns {names}, {problem}; {expected}")
    return Columns(image, captions, _choose_split(path, sample, names, given.split), given.group)


def _choose_captions(sample: list[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """All columns of the best usual name, else the column of the longest texts, two words or more on average."""
    ranks = {name: _rank(name, CAPTION_COLUMNS) for name in names if not isinstance(sample[0].get(name), Embedded)}
    if (best := min(ranks.values(), default=len(CAPTION_COLUMNS))) < len(CAPTION_COLUMNS):
        return [name for name in ranks if ranks[name] == best]
    texts = {name: [str(text or "") for fields in sample for text in read_texts(fields, [name])] for name in ranks}
    words = {name: len(" ".join(texts[name]).split()) for name in ranks}
    return [name for name in words if words[name] == max(words.values()) >= 2 * len(sample)][:1]


def _choose_split(path: Path, sample: list[dict[str, Any]], names: Sequence[str], given: str | None) -> str | None:
    """The column that is given or has a usual name and no words but splits. UserError where the given one has."""
    for name in [given] if given else [name for name in names if name.strip().lower() in SPLIT_COLUMNS]:
        words = {str(fields.get(name) or "").strip().lower() for fields in sample} - {"", "nan"}
        unknown = sorted(words - SPLITS.keys())
        if not unknown and (given or words):
            return name
        if given:
            problem = f"datamodule.split_column={given!r} of {path.name} holds {unknown[:5]}"
            raise UserError(f"{problem}; expected train, val or test; correct it")
        log.warning("%s: the column %r holds other words than train, val and test, and is not used", path.name, name)
    return None


def read_texts(fields: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    """Return the captions of a row, at least one; columns that are empty beside others give none."""
    cells = [fields.get(column) for column in columns]
    found = [text for cell in cells for text in (cell if isinstance(cell, list) else [cell])]
    keys = ("raw", "caption", "text")
    texts = [next((t[key] for key in keys if key in t), None) if isinstance(t, dict) else t for t in found]
    return [text for text in texts if text or len(columns) == 1] or [None]


def _rank(name: str, usual: Sequence[str]) -> int:
    """The position of a name among the usual ones, also in the plural and numbered; their number where it is none."""
    plain = re.sub(r"[\W_]+", "_", name.strip().lower())
    forms = (plain, re.sub(r"s?(_?\d+)?$", "", plain))
    return next((position for position, word in enumerate(usual) if word in forms), len(usual))
