"""Read MedICaT: the release's jsonl, its folder of figures and its subfigures become a CaptionTable."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow
from src.datamodule.readers.columns import SPLITS, read_texts
from src.datamodule.readers.encodings import clean_caption, printable
from src.datamodule.readers.image_folder import ImageFolder, ImageNotFound, find_first, find_path
from src.datamodule.readers.json_files import read_json, read_jsonl
from src.utils.errors import UserError

RELEASE = "s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"
SPLIT_FILE = "subcaption_split_keys.json"
CAPTION_FIELDS = ("s2_caption", "s2orc_caption")
# A number, then a mark or a capital: "Figure 1.", "Fig 3.", "FIGURE 2:", "Fig. S1a -", "Figure 4 Axial CT".
# "Figure 1 shows a cyst" is a sentence and stays.
LABEL = re.compile(
    r"^(?i:(?:supplementary|supplemental|suppl\.?|online|extended data)\s+)?"
    r"(?i:fig(?:ure|s)?)\b\.?\s*"
    r"(?:[A-Z]{0,2}\d+(?:\.\d+)*[A-Za-z]?|[IVX]+\b)(?:[-–,&](?:\d+[A-Za-z]?|[A-Za-z])\b)?"
    r"(?:\s*(?:[.:|]|[-–—](?=\s))\s*|\s+(?=[A-Z(\[])|\s*$)"
)


class Subfigure(NamedTuple):
    """A box of a figure with its caption; `letter` names it, box None is the whole figure."""

    box: tuple[int, int, int, int] | None  # left, top, right, bottom in pixels
    caption: str
    letter: str


def read_medicat(
    data_dir: str | Path,
    captions_file: str | Path | None = None,
    images_dir: str | Path | None = None,
    subcaptions_file: str | Path | None = None,
    subfigures_only: bool = False,
    radiology_only: bool = False,
    scope_only: bool = False,
    caption_fields: Sequence[str] = CAPTION_FIELDS,
    references: bool = False,
    strip_labels: bool = True,
    min_words: int = 1,
) -> CaptionTable:
    """Read a MedICaT folder: one image per figure (or subfigure) in file order, one group per paper (`pdf_hash`).

    The arguments are the keys of configs/datamodule/medicat.yaml. With subcaptions, SPLIT_FILE beside them is the
    official split. UserError where a folder or file is missing or unreadable, or no row has the release's fields.
    """
    root = find_path("data_dir", data_dir, is_dir=True)
    names = sorted(path.name for path in root.glob("*.jsonl") if not path.name.startswith("subcaptions"))
    index = find_first("captions_file", captions_file, root, (RELEASE, *names[:1]))
    if index is None or (captions_file is None and len(names) > 1 and index.name != RELEASE):
        raise UserError(
            f"datamodule.data_dir={str(root)!r} has {len(names)} jsonl files ({names}); "
            "expected the release's .jsonl and figures/; set datamodule.captions_file=..."
        )
    folder, table = ImageFolder(root, images_dir), CaptionTable([], [], 0, Counter())
    subfigures: dict[str, list[Subfigure]] = {}
    split_of: dict[str, str] = {}
    if subcaptions_file is not None:
        file = find_path("subcaptions_file", subcaptions_file, root)
        subfigures, split_of = read_subfigures(file, table), _read_split(file.with_name(SPLIT_FILE))
    required = [name for name, on in (("radiology", radiology_only), ("scope", scope_only)) if on]
    fields = [caption_fields] if isinstance(caption_fields, str) else list(caption_fields)
    seen, line = set[str](), 0
    for line, row in _read_rows(index, table):
        figure = f"{row['pdf_hash']}_{row['fig_uri']}"
        reasons = [f"not {name}" for name in required if row.get(name) is not True]
        reasons += ["no subfigures"] if subfigures_only and figure not in subfigures else []
        reasons += ["not in the official split"] if split_of and figure not in split_of else []
        if reasons:
            table.excluded[reasons[0]] += 1
            continue
        try:
            image_id, path, _ = folder.find(figure)
            if image_id in seen:
                raise ImageNotFound("duplicate figure", "")
        except ImageNotFound as error:
            _skip(table, line, figure, error.reason, error.detail)
            continue
        seen.add(image_id)
        texts = [clean_caption(row[name]) for name in fields if isinstance(row.get(name), str)]
        whole = Subfigure(None, next(filter(None, texts), ""), "")
        more = read_texts(row, ["s2orc_references"]) if references and figure not in subfigures else []
        extra = [text for one in more if isinstance(one, str) and (text := clean_caption(one))]
        for number, (box, text, letter) in enumerate(subfigures.get(figure, [whole]), 1):
            name = image_id if box is None else f"{image_id}#{number}"
            caption = strip_label(text, letter) if strip_labels else text
            if not caption:
                _skip(table, line, name, "empty caption", "")
            elif len(caption.split(" ")) < min_words:
                table.excluded[f"under {min_words} words"] += 1
            else:
                captions = tuple(dict.fromkeys([caption, *extra]))
                paper, license_name, split = row["pdf_hash"], _license(row), split_of.get(figure)
                table.images.append(CaptionedImage(name, path, captions, paper, box, license_name, split))
    if not line:
        raise UserError(
            f"{str(index)!r} has no line with pdf_hash and fig_uri; expected the release's jsonl ({RELEASE}); "
            "set datamodule.captions_file=..."
        )
    return table


def _read_rows(path: Path, table: CaptionTable) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and fields of each line with pdf_hash and fig_uri; count all, list the others as malformed."""
    for number, row, _ in read_jsonl(path):
        table.rows_read += 1
        if all(isinstance(row.get(name), str) and row[name] for name in ("pdf_hash", "fig_uri")):
            yield number, row
        else:
            _skip(table, number, "", "malformed line", f"{path.name}: {row.get('', row)}")


def _read_split(path: Path) -> dict[str, str]:
    """The split of each figure, by "{pdf_hash}_{fig_uri}"; {} where there is no such file."""
    if not path.is_file():
        return {}
    fields = {str(record.fields.get("image")): record.fields.get("caption") for record in read_json(path)}
    keys = {
        key: SPLITS[name] for name in fields if name in SPLITS for key in fields[name] or () if isinstance(key, str)
    }
    return keys or {key: SPLITS[name] for key, name in fields.items() if isinstance(name, str) and name in SPLITS}


def _skip(table: CaptionTable, line: int, figure: str, reason: str, detail: str) -> None:
    table.skipped.append(SkippedRow(line, printable(figure), reason, printable(detail, 80)))


def strip_label(caption: str, letter: str = "") -> str:
    """Return the caption without a leading "Figure 1." or the like, and without "(A)" or "A." of subfigure A."""
    caption = LABEL.sub("", caption, count=1)
    mark = rf"^\(?{re.escape(letter)}(?:\)[.:,]?|[.:])\s*"
    return re.sub(mark, "", caption, count=1, flags=re.IGNORECASE) if letter else caption


def _license(row: Mapping[str, Any]) -> str:
    """The article's license, "cc-by" or the like; "" where the release knows none."""
    try:
        return printable(row["oa_info"]["oa"]["license"], 80)
    except (KeyError, TypeError):
        return ""


def read_subfigures(path: Path, table: CaptionTable) -> dict[str, list[Subfigure]]:
    """Return the subfigures of all accepted figures by "{pdf_hash}_{fig_uri}"; `table` counts and lists unusable rows.

    A row has `pdf_hash`, `fig_uri`, `answer`, `width` and `height` in pixels, `tokens` ({"text", "start", "end"}),
    `subfigures` ({"label", "points": [[x, y], ...]}; or `spans`) and `subcaptions` (label -> tokens' indices, or text).
    """
    found: dict[str, list[Subfigure]] = {}
    for number, row in _read_rows(path, table):
        if row.get("answer") != "accept":
            table.excluded["subfigures not accepted"] += 1
            continue
        figure, captions = f"{row['pdf_hash']}_{row['fig_uri']}", row.get("subcaptions")
        crops = row.get("subfigures") or row.get("spans")
        for crop in crops if isinstance(crops, list) else []:
            fields = crop if isinstance(crop, dict) else {}
            box, label = _box(fields.get("points"), row), str(fields.get("label"))
            caption = _join_tokens(captions.get(label), row) if isinstance(captions, dict) else ""
            if box is None:
                _skip(table, number, figure, "malformed box", f"{path.name}: {crop}")
            elif caption:
                found.setdefault(figure, []).append(Subfigure(box, caption, label))
            else:
                table.excluded["subfigures without a subcaption"] += 1
    return found


def _box(points: Any, row: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """The upright box around a polygon, within the image where its size is known; None where it is empty."""
    try:
        xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
        left, top = max(math.floor(min(xs)), 0), max(math.floor(min(ys)), 0)
        right = min(math.ceil(max(xs)), int(row.get("width") or 10**6))
        bottom = min(math.ceil(max(ys)), int(row.get("height") or 10**6))
    except (TypeError, ValueError, OverflowError):  # no pairs, no numbers, none at all, nan, infinite
        return None
    return (left, top, right, bottom) if left < right and top < bottom else None


def _join_tokens(indices: Any, row: Mapping[str, Any]) -> str:
    """The text of a subcaption: its tokens, with a blank between those that the caption separates."""
    if isinstance(indices, str):
        return clean_caption(indices)
    tokens = row.get("tokens")
    if not isinstance(indices, list) or not isinstance(tokens, list):
        return ""
    text, end = "", None
    for index in sorted({index for index in indices if isinstance(index, int) and 0 <= index < len(tokens)}):
        token = tokens[index] if isinstance(tokens[index], dict) else {"text": tokens[index]}
        adjacent = end is not None and token.get("start") == end
        text, end = f"{text}{'' if adjacent else ' '}{token.get('text', '')}", token.get("end")
    return clean_caption(text)
