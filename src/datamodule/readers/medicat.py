"""Step 1 for MedICaT: the release's jsonl and its folder of figures become a `CaptionTable`.

Apart from `medicat.py`, so that the index can be read without loading torch.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow
from src.datamodule.readers.encodings import printable, stream_lines
from src.datamodule.readers.figure_captions import FigureFilter
from src.datamodule.readers.image_folder import (
    ImageFolder,
    ImageNotFound,
    find_file,
    find_folder,
    find_subfolder,
)
from src.datamodule.readers.subfigures import Subfigures, parse_row, read_subfigures
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

RELEASE = "s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"
FIGURE_FOLDERS = ("figures", "Figures")
LAYOUT = "a folder with the release's .jsonl and figures/"


def read_medicat(
    data_dir: str | Path,
    captions_file: str | Path | None = None,
    images_dir: str | Path | None = None,
    subcaptions_file: str | Path | None = None,
    subfigures_only: bool = False,
    choose: FigureFilter | None = None,
) -> CaptionTable:
    """Read a MedICaT folder; figures are looked for in one listing and not opened.

    Args:
        data_dir: holds the jsonl and the folder of figures.
        captions_file: inside `data_dir` or absolute; None takes the release's file, else the only .jsonl.
        images_dir: likewise; None takes figures/.
        subcaptions_file: the release's subcaptions_public.jsonl. A figure with accepted subfigures there is
            replaced by them: one image for each box, with its subcaption.
        subfigures_only: leave out the figures that have none.
        choose: rows and captions to use; None takes all rows.

    Returns:
        One image per figure in the order of the file, one group per paper (`pdf_hash`).

    Raises:
        UserError: a folder or file is missing or unreadable, or no row of the jsonl has the release's fields.
    """
    root = find_folder("datamodule.data_dir", data_dir, LAYOUT)
    if subfigures_only and subcaptions_file is None:
        raise UserError(
            "datamodule.subfigures_only=true without a file of subfigures; expected "
            "datamodule.subcaptions_file=subcaptions_public.jsonl; set it, or subfigures_only=false"
        )
    index = (
        _find_index(root)
        if captions_file is None
        else find_file("datamodule.captions_file", captions_file, root)
    )
    folder = ImageFolder(find_subfolder(root, "datamodule.images_dir", images_dir, FIGURE_FOLDERS))
    subfigures = Subfigures()
    if subcaptions_file is not None:
        subfigures = read_subfigures(find_file("datamodule.subcaptions_file", subcaptions_file, root))
    reader = _IndexReader(folder, choose or FigureFilter(), subfigures, subfigures_only)
    table = reader.read(index)
    folder.log_near_matches()
    missing = sum(row.reason == "no image" for row in table.skipped)
    if missing:
        log.warning(
            "figures missing: %.1f%% (%d of %d)", 100 * missing / table.rows_read, missing, table.rows_read
        )
    return table


def _find_index(root: Path) -> Path:
    """The release's jsonl.

    Raises:
        UserError: there is none, or there are several and none has the release's name.
    """
    if (root / RELEASE).is_file():
        return root / RELEASE
    files = [path for path in sorted(root.glob("*.jsonl")) if not path.name.startswith("subcaptions")]
    if len(files) == 1:
        return files[0]
    found = ", ".join(path.name for path in files[:8]) or "none"
    raise UserError(
        f"datamodule.data_dir={printable(str(root))!r} has {len(files)} jsonl files ({printable(found)}); "
        f"expected {LAYOUT}; set datamodule.captions_file=..."
    )


class _IndexReader:
    """One pass over the jsonl; nothing of a row is kept but what the table holds."""

    def __init__(
        self, folder: ImageFolder, choose: FigureFilter, subfigures: Subfigures, subfigures_only: bool
    ) -> None:
        self.folder = folder
        self.choose = choose
        self.subfigures = subfigures
        self.subfigures_only = subfigures_only
        self.seen: set[str] = set()
        self.images: list[CaptionedImage] = []
        self.skipped: list[SkippedRow] = []
        self.excluded: Counter[str] = Counter(subfigures.excluded)

    def read(self, path: Path) -> CaptionTable:
        """The table of the whole file.

        Raises:
            UserError: the file cannot be read, or no line has the release's fields.
        """
        rows_read = understood = 0
        for number, line in enumerate(stream_lines(path), 1):
            if not line.strip("\x00 \t"):
                continue
            rows_read += 1
            row = parse_row(line)
            if row is None:
                self._skip(number, "", "malformed line", line)
                continue
            understood += 1
            self._add(number, row)
        if not understood:
            raise UserError(
                f"{str(path)!r} has no line with pdf_hash and fig_uri; expected the release's jsonl "
                f"({RELEASE}); set datamodule.captions_file=..."
            )
        self.skipped += self.subfigures.skipped
        rows_read += self.subfigures.rows_read
        return CaptionTable(self.images, self.skipped, rows_read, dict(self.excluded))

    def _add(self, number: int, row: Mapping[str, Any]) -> None:
        """Put a row's images into the table, or say why there are none."""
        reason = self.choose.unwanted(row)
        if reason:
            self.excluded[reason] += 1
            return
        figure = f"{row['pdf_hash']}_{row['fig_uri']}"
        try:
            image_id, path, _ = self.folder.find(figure)
        except ImageNotFound as cause:
            self._skip(number, figure, cause.reason, cause.detail)
            return
        caption, panels = self.choose.caption(row), self.subfigures.of_figure.get(figure, [])
        if image_id in self.seen:
            self._skip(number, figure, "duplicate figure", caption)
            return
        self.seen.add(image_id)
        license = _licence(row)
        for place, panel in enumerate(panels, 1):
            text = self.choose.panel_caption(panel.caption, panel.panel)
            name = f"{image_id}#{place}"
            self._put(number, CaptionedImage(name, path, (text,), row["pdf_hash"], panel.box, license))
        if not panels and self.subfigures_only:
            self.excluded["no subfigures"] += 1
        elif not panels:
            self._put(number, CaptionedImage(image_id, path, (caption,), row["pdf_hash"], None, license))

    def _put(self, number: int, image: CaptionedImage) -> None:
        reason = self.choose.too_short(image.captions[0])
        if not image.captions[0]:
            self._skip(number, image.image_id, "empty caption", "")
        elif reason:
            self.excluded[reason] += 1
        else:
            self.images.append(image)

    def _skip(self, number: int, figure: str, reason: str, detail: str) -> None:
        self.skipped.append(SkippedRow(number, printable(figure), reason, printable(detail, 80)))


def _licence(row: Mapping[str, Any]) -> str:
    """The article's license, "cc-by" or the like; "" where the release knows none."""
    info = row.get("oa_info")
    access = info.get("oa") if isinstance(info, dict) else None
    license = access.get("license") if isinstance(access, dict) else None
    return sys.intern(printable(license, 80)) if isinstance(license, str) else ""
