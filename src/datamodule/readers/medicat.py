"""Read MedICaT: the release's jsonl, its folder of figures and its subfigures become a CaptionTable."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow
from src.datamodule.readers import files
from src.datamodule.readers.files import SPLITS, ImageFolder, ImageNotFound, clean_caption, printable
from src.datamodule.readers.records import read_json, read_jsonl
from src.datamodule.readers.tables import read_texts
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


def read_medicat(
    data_dir: str | Path, captions_file: str | Path | None = None, images_dir: str | Path | None = None,
    subcaptions_file: str | Path | None = None, subfigures_only: bool = False,
    radiology_only: bool = False, scope_only: bool = False, caption_fields: Sequence[str] = CAPTION_FIELDS,
    references: bool = False, strip_labels: bool = True, min_words: int = 1,
) -> CaptionTable:  # fmt: skip
    """Read a MedICaT folder: one image per figure (or subfigure) in file order, one group per paper (`pdf_hash`).

    The arguments are the keys of configs/datamodule/medicat.yaml. With subcaptions, SPLIT_FILE beside them is the
    official split. UserError where a folder or file is missing or unreadable, or no row has the release's fields.
    """
    root = files.find_path("data_dir", data_dir, is_dir=True)
    names = sorted(path.name for path in root.glob("*.jsonl") if not path.name.startswith("subcaptions"))
    index = files.find_first("captions_file", captions_file, root, names if len(names) == 1 else [RELEASE])
    if index is None:
        problem = f"datamodule.data_dir={str(root)!r} has {len(names)} jsonl files ({names})"
        raise UserError(f"{problem}; expected {RELEASE} and figures/; set datamodule.captions_file=...")
    folder, table = ImageFolder(root, images_dir), CaptionTable([], [], 0, Counter())
    file = None if subcaptions_file is None else files.find_path("subcaptions_file", subcaptions_file, root)
    subfigures = read_subfigures(file, table) if file else {}
    split_of = _read_split(file.with_name(SPLIT_FILE)) if file else {}
    required = ["radiology"] * radiology_only + ["scope"] * scope_only
    fields = [caption_fields] if isinstance(caption_fields, str) else list(caption_fields)
    seen = set[str]()
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
        whole = None, next(filter(None, texts), ""), ""
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
                captions, paper, split = tuple(dict.fromkeys([caption, *extra])), row["pdf_hash"], split_of.get(figure)
                table.images.append(CaptionedImage(name, path, captions, paper, box, _license(row), split))
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
    """The split of each figure by "{pdf_hash}_{fig_uri}", of {split: [keys]} or {key: split}; {} without the file."""
    split_of: dict[str, str] = {}
    for _, fields, _ in read_json(path) if path.is_file() else ():
        name, value = fields.get("image"), fields.get("caption")
        keys, split = (value, name) if isinstance(value, list) else ([name], value)
        if split in SPLITS:
            split_of |= dict.fromkeys(map(str, keys), SPLITS[split])
    return split_of


def _skip(table: CaptionTable, line: int, figure: str, reason: str, detail: str) -> None:
    table.skipped.append(SkippedRow(line, printable(figure), reason, printable(detail, 80)))


def strip_label(caption: str, letter: str = "") -> str:
    """Return the caption without a leading "Figure 1." or the like, and without "(A)" or "A." of subfigure A."""
    caption = LABEL.sub("", caption, count=1)
    mark = rf"^\(?{re.escape(letter)}(?:\)[.:,]?|[.:])\s*"
    return re.sub(mark, "", caption, count=1, flags=re.IGNORECASE) if letter else caption


def _license(row: Mapping[str, Any]) -> str:
    """The article's license, "cc-by" or the like; "" where the release knows none."""
    with suppress(KeyError, TypeError):
        return printable(row["oa_info"]["oa"]["license"], 80)
    return ""


def read_subfigures(path: Path, table: CaptionTable) -> dict[str, list[tuple[Any, str, str]]]:
    """Return box (left, top, right, bottom in pixels), caption and letter of each accepted figure's subfigures.

    Figures are named "{pdf_hash}_{fig_uri}"; `table` counts and lists unusable rows. A row has `answer`, `tokens`
    ({"text", "start", "end"}), `subfigures` or `spans` ({"label", "points": [[x, y], ...]}) and `subcaptions`.
    """
    found: dict[str, list[tuple[Any, str, str]]] = {}
    for number, row in _read_rows(path, table):
        if row.get("answer") != "accept":
            table.excluded["subfigures not accepted"] += 1
            continue
        figure, captions = f"{row['pdf_hash']}_{row['fig_uri']}", row.get("subcaptions")
        crops = row.get("subfigures") or row.get("spans")
        for crop in (crop for crop in (crops if isinstance(crops, list) else []) if isinstance(crop, dict)):
            box, label = _box(crop.get("points"), row), str(crop.get("label"))
            caption = _join_tokens(captions.get(label), row) if isinstance(captions, dict) else ""
            if box is None:
                _skip(table, number, figure, "malformed box", f"{path.name}: {crop}")
            elif caption:
                found.setdefault(figure, []).append((box, caption, label))
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
    tokens, text, end = row.get("tokens") or [], "", None
    for index in sorted({k for k in indices or () if isinstance(k, int) and 0 <= k < len(tokens)}):
        token = tokens[index] if isinstance(tokens[index], dict) else {"text": tokens[index]}
        adjacent = end is not None and token.get("start") == end
        text, end = f"{text}{'' if adjacent else ' '}{token.get('text', '')}", token.get("end")
    return clean_caption(text)
