"""Read tables of image names and captions as records: csv, tsv and the like, and parquet.

Lines are parsed one by one: captions have commas without quotes, and quotes that never close must swallow no other row.
"""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from src.datamodule.readers.encodings import read_lines
from src.utils.errors import UserError

TOKEN_ROW = re.compile(r"([^\t]+)#\d+ *\t(.*)")  # Flickr8k.token.txt: name.jpg#0<TAB>caption
ROW_START = re.compile(r'"?[^",]+\.(?:jpe?g|png|gif|bmp|tiff?|webp)"?,', re.IGNORECASE)
CAPTION = re.compile("caption|text|desc|comment|sentence|report|title", re.IGNORECASE)
MAX_CAPTION_LINES = 20


class Record(NamedTuple):
    """One row of a file, unchecked: fields by column name."""

    line: int  # from 1; in json and parquet the position of the row
    fields: dict[str, Any]
    error: str = ""  # why it is no row; fields[""] then has its text


class Embedded(NamedTuple):
    """An image whose bytes stand in a parquet file."""

    column: str
    row: int  # within the file, from 0
    name: str  # as the file has it, "" if it has none


def read_delimited(path: Path, is_image: Callable[[str], bool]) -> list[Record]:
    """Read delimited lines; the first names the columns, which are "image" and "caption" where it begins with an image.

    The delimiter is the first of tab, "|", ";" and "," in the first line. UserError where the file cannot be read.
    """
    lines = dict(enumerate(read_lines(path), 1))
    start = next((number for number, line in lines.items() if line.strip("\x00 \t")), None)
    if start is None:
        return []
    head = lines[start]
    if TOKEN_ROW.fullmatch(head):
        rows = ((number, line, TOKEN_ROW.fullmatch(line)) for number, line in lines.items())
        return [
            Record(
                number, {"image": found[1].strip(), "caption": found[2]} if found else {"": line}, _error(line, found)
            )
            for number, line, found in rows
            if line.strip("\x00 \t")
        ]
    delimiter = next((mark for mark in "\t|;," if mark in head), ",")
    columns = [cell.strip() for cell in next(csv.reader([head], delimiter=delimiter, skipinitialspace=True))]
    if len(columns) < 2:
        raise UserError(
            f"{str(path)!r} begins with {head[:60]!r}; expected a first line that names the columns, such as "
            "'image,caption', or rows like 'name.jpg#0<TAB>caption'; correct it or set datamodule.captions_file=..."
        )
    image = next((k for k, cell in enumerate(columns) if not cell.isdigit() and is_image(cell)), None)
    if image is not None:  # no header; a number may stand before or behind the image
        numbers = [str(k) for k, cell in enumerate(columns[image + 1 : image + 2]) if cell.isdigit()]
        columns, start = [*(f"column {k}" for k in range(image)), "image", *numbers, "caption"], start - 1
    has_caption_last = len(columns) == 2 or bool(CAPTION.search(columns[-1]))
    if delimiter == ",":
        _join_quoted(lines, len(columns))
    records = []
    for number, line in lines.items():
        if number > start and line.strip("\x00 \t"):
            cells = _split(line, delimiter, len(columns), has_caption_last)
            fields = dict(zip(columns, cells, strict=True)) if cells else {"": line}
            records.append(Record(number, fields, _error(line, cells)))
    return records


def _error(line: str, found: Any) -> str:
    return "" if found else "unclosed quote" if line.count('"') % 2 else "malformed line"


def _split(line: str, delimiter: str, count: int, has_caption_last: bool = True) -> list[str] | None:
    """Return the cells of a line; surplus delimiters belong to a caption that is last; None where it is malformed."""
    line = line.strip("\x00 ") if delimiter != "\t" else line
    plain = line.split(delimiter, count - 1)
    try:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        cells = []
    if len(cells) == count:
        return cells
    if delimiter == "|" and len(plain) == count - 1 and (number := re.match(r"\s*(\d+)\s+(?=\S)", plain[-1])):
        return [*plain[:-1], number[1], plain[-1][number.end() :]]  # a known row of results.csv lacks its second "|"
    if not has_caption_last:
        return None
    quoted = delimiter == "," and (plain[-1].lstrip()[:1] == '"' or '"' in "".join(plain[:-1]))
    return plain if len(plain) == count and not quoted else None


def _join_quoted(lines: dict[int, str], count: int) -> None:
    """Join the lines of a quoted caption, in place; one that does not close before the next row stays as it is."""
    for start in [number for number, line in lines.items() if line.count('"') % 2]:
        text = lines.get(start, "")
        ends = range(start + 1, start + MAX_CAPTION_LINES)
        for end in ends if start in lines and _split(text, ",", count) is None else ():
            if end not in lines or ROW_START.match(lines[end].lstrip()):
                break
            text = f"{text}\n{lines[end]}"
            if '"' in lines[end] and _split(text, ",", count):
                lines[start] = text
                for number in range(start + 1, end + 1):
                    del lines[number]
                break


def read_parquet(path: Path) -> list[Record]:
    """Read a parquet file but for the bytes of its images, which become `Embedded`. UserError where it is damaged."""
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        images = [field.name for field in schema if _holds_bytes(field.type)]
        paths = [f"{name}.path" for name in images if pa.types.is_struct(schema.field(name).type)]
        rows = file.read(columns=[*(name for name in schema.names if name not in images), *paths]).to_pylist()
        absent = {name for name in images if _is_absent(file, f"{name}.bytes")}
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{str(path)!r} cannot be read ({reason}); expected a parquet file; write it again") from error
    for number, row in enumerate(rows):
        for name in images:
            file_name = (row.get(name) or {}).get("path") or ""
            short = file_name.replace("\\", "/")
            short = short.rpartition("/")[2] if ".." in short or short.startswith("/") or ":" in short else short
            row[name] = file_name if name in absent else Embedded(name, number, short)
    return [Record(number, row) for number, row in enumerate(rows, 1)]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and kind.get_field_index("path") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_absent(file: pq.ParquetFile, column: str) -> bool:
    """Whether a column holds nulls alone, as its statistics say."""
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    chunks = [group.column(k) for group in groups for k in range(group.num_columns)]
    found = [chunk for chunk in chunks if chunk.path_in_schema == column]
    return bool(found) and all(c.statistics is not None and c.statistics.null_count == c.num_values for c in found)
