"""csv/metrics.csv: the logged numbers of a run, complete at any moment and continued when the run resumes."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)
Row = Mapping[str, Any]


class CsvLogger(Logger):
    """Append logged numbers to `<save_dir>/metrics.csv`, one row a step; survive a kill and a full disk.

    Lightning's CSVLogger deletes the file of an earlier start, and rewrites it in place. Here rows are appended in
    one system call, a new column makes a new file that is renamed, and rows that find no room wait in memory.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []

    name, version = "csv", ""

    @property
    def save_dir(self) -> str:
        """The folder of the file."""
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `config_resolved.yaml` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        self.rows.append({**metrics, "step": step or 0})

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that were logged since the last call; the trainer calls it each `log_every_n_steps`."""
        if not self.rows:
            return
        header, _ = read_rows(self.path, header_only=True)
        columns = sorted({*header, *(name for row in self.rows for name in row)})
        try:
            if columns == header:
                _append(self.path, _as_csv(columns, self.rows))
            else:
                _rewrite(self.path, columns, [*read_rows(self.path)[1], *self.rows])
        except OSError as error:
            log.warning(
                "%s cannot be written now (%s); its rows are kept", self.path, error.strerror or error
            )
            return
        self.rows = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()

    @rank_zero_only
    def resume_at(self, step: int) -> None:
        """Drop what was logged at optimizer step `step` (counted from 0) or later: it is logged again."""
        header, rows = read_rows(self.path)
        kept = [row for row in rows if str(row.get("step")).isdigit() and int(row["step"]) < step]
        if header:
            _rewrite(self.path, header, kept)


def read_rows(path: Path, header_only: bool = False) -> tuple[list[str], list[Row]]:
    """Return columns and whole rows of a csv file; a last row that a power cut shortened is left out."""
    if not path.is_file():
        return [], []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        header = list(rows.fieldnames or [])
        return header, [] if header_only else [row for row in rows if None not in (*row, *row.values())]


def _as_csv(columns: Sequence[str], rows: Iterable[Row], header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _append(path: Path, lines: str) -> None:
    """Append all lines or none: a write that a full disk cut short is taken back."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
    try:
        size, data = os.fstat(handle).st_size, lines.encode()
        if os.write(handle, data) < len(data):
            os.ftruncate(handle, size)
            raise OSError(28, "No space left on device")
    finally:
        os.close(handle)


def _rewrite(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with atomic_write(path) as file:
        file.write(_as_csv(columns, rows, header=True))
