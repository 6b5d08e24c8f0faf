"""csv/metrics.csv: the logged numbers of a run, whole at any moment, with those of the run that it goes on from."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only

from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)


class CsvHistory(CSVLogger):
    """CSVLogger whose file survives a kill and a full disk.

    Lightning's own opens the file for writing whenever a new metric appears, and a kill then loses what was
    there. Here new columns make a new file that is renamed, and rows are appended in one system call. Rows that
    find no room wait in memory for the next save.
    """

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that were logged since the last call."""
        writer: Any = self.experiment
        rows = writer.metrics
        if not rows:
            return
        path = Path(writer.metrics_file_path)
        columns = sorted({*writer.metrics_keys, *(name for row in rows for name in row)})
        try:
            if columns == writer.metrics_keys:
                _append(path, _lines(columns, rows))
            else:
                _rewrite(path, columns, rows)
        except OSError as error:
            log.warning("%s cannot be written now (%s); its rows are kept", path, error.strerror or error)
            return
        writer.metrics, writer.metrics_keys = [], columns


def _lines(columns: Sequence[str], rows: Sequence[dict[str, Any]], header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _append(path: Path, lines: str) -> None:
    """Append whole lines or nothing: a write that a full disk cut short is taken back."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        size, data = os.fstat(handle).st_size, lines.encode()
        if os.write(handle, data) < len(data):
            os.ftruncate(handle, size)
            raise OSError(28, "No space left on device")
    finally:
        os.close(handle)


def _rewrite(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    earlier: list[dict[str, Any]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            earlier = list(csv.DictReader(file))
    with atomic_write(path) as file:
        file.write(_lines(columns, [*earlier, *rows], header=True))


def carry_history(earlier: Path, folder: Path, steps: int) -> None:
    """Copy what an earlier run had logged before its optimizer step `steps` into `csv/` of the run going on.

    Each file keeps its name below `csv/earlier/`, where the report finds it.
    """
    source = earlier / "csv"
    for path in sorted(source.rglob("metrics.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            kept = [row for row in rows if _before(row, steps)]
            columns = rows.fieldnames or []
        if kept:
            with atomic_write(folder / "csv" / "earlier" / path.relative_to(source)) as file:
                file.write(_lines(columns, kept, header=True))


def _before(row: dict[str, Any], steps: int) -> bool:
    """Whether a row was logged before optimizer step `steps`; rows count steps from 0."""
    step = row.get("step") or ""
    return None not in row and step.isdigit() and int(step) < steps
