"""Choose the columns of a table that hold image names, captions and the split."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.datamodule.readers.tables import Embedded, Record
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

SPLITS = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
IMAGE_COLUMNS = ("file_name", "filename", "image", "image_name", "image_path", "path", "file", "img", "image_id", "id")
CAPTION_COLUMNS = ("caption", "text", "description", "sentence", "comment", "report", "title")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
SAMPLE_ROWS = 50  # that tell what a column holds


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
    for name in filter(None, (given.image, *given.captions, given.split, given.group) if sample else ()):
        if name not in names:
            raise UserError(
                f"{str(path)!r} has the columns {names}, but none is {name!r}; expected one of them; correct "
                "datamodule.image_column, caption_columns, split_column or group_column"
            )

    def images(name: str) -> int:
        cells = [fields.get(name) for fields in sample]
        return sum(isinstance(cell, Embedded) or (isinstance(cell, str) and is_image(cell.strip())) for cell in cells)

    def words(name: str) -> float:
        return sum(len(str(text).split()) for fields in sample for text in read_texts(fields, [name]) if text)

    image = given.image or min(names, key=lambda name: (-images(name), _rank(name, IMAGE_COLUMNS)), default="image")
    others = [name for name in names if name != image and not isinstance(sample[0].get(name), Embedded)]
    best = min((_rank(name, CAPTION_COLUMNS) for name in others), default=len(CAPTION_COLUMNS))
    captions = [name for name in others if _rank(name, CAPTION_COLUMNS) == best < len(CAPTION_COLUMNS)]
    if not captions and others:  # no usual name: the column of the longest texts
        captions = [name for name in (max(others, key=words),) if words(name) >= 2 * len(sample)]
    captions = list(given.captions) or captions
    found = images(image) or _rank(image, IMAGE_COLUMNS) < len(IMAGE_COLUMNS)
    if sample and not (captions and found):
        raise UserError(
            f"{str(path)!r} has the columns {names}, none with {'captions' if found else 'names of image files'}; "
            "expected a column of file names and one of captions; add it, or set datamodule.image_column=..., "
            "datamodule.caption_columns=... or datamodule.images_dir=..."
        )
    texts = {name: {str(fields.get(name) or "").strip().lower() for fields in sample} - {"", "nan"} for name in names}
    usual = [name for name in names if name.strip().lower() in SPLIT_COLUMNS]
    splits = [name for name in usual if texts[name] and texts[name] <= SPLITS.keys()]
    unknown = sorted(texts[given.split] - SPLITS.keys()) if given.split and sample else []
    if unknown:
        raise UserError(
            f"datamodule.split_column={given.split!r} of {path.name} holds {unknown[:5]}; "
            "expected train, val (validation, dev) or test; correct the column"
        )
    if usual and not splits and not given.split:
        log.warning(
            "%s: the column %r holds other words than train, val and test, and is not used", path.name, usual[0]
        )
    return Columns(image, captions, given.split or (splits[0] if splits else None), given.group)


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
