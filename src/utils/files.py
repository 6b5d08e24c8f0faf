"""Write files atomically: whole or not at all."""

import csv
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
SCRATCH_MARKER = ".captioner-scratch"


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`, in a folder that is created; rename it to `path` when it is whole.

    mode: "w" (UTF-8, newlines as written) or "wb". OSError where the folder or the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def scratch_folder(parent: Path, prefix: str, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder `<parent>/<prefix>...` that is removed at the end, as are those of killed processes.

    Only folders of that prefix with our marker, of the same owner and in no use, are removed. OSError as `mkdir`.
    """
    from filelock import FileLock, Timeout

    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{prefix}{secrets.token_hex(4)}"
    folder.mkdir(mode)
    try:
        with FileLock(folder / SCRATCH_MARKER):
            for marker in parent.glob(f"{prefix}*/{SCRATCH_MARKER}"):
                old = marker.parent.lstat()
                if stat.S_ISDIR(old.st_mode) and old.st_uid == folder.stat().st_uid:
                    with suppress(OSError, Timeout), FileLock(marker, timeout=0):
                        shutil.rmtree(marker.parent)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create_folder_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a new folder beside `folder` and rename that when complete, unless `folder` holds files.

    One process at a time writes, the others wait. OSError as `mkdir`, and what `write` raises.
    """
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir() or not any(folder.iterdir()):
            log.info("creating %s", folder)
            with scratch_folder(folder.parent, f".{folder.name}.") as scratch:
                write(scratch / "data")
                (scratch / "data").rename(folder)


def local_path(path: str | Path) -> str:
    """Return a path as it is typed in the current folder: relative where it is inside."""
    absolute = Path(path).absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; a UserError where it cannot be written."""
    try:
        with atomic_write(path) as file:
            file.write(text)
    except OSError as error:
        found = f"{path} cannot be written ({error.strerror})"
        raise UserError(f"{found}; expected a folder with room; free some space, or set paths.log_dir") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object as `write_text` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a csv file atomically; text stands in it as it is. OSError as `atomic_write`."""
    with atomic_write(path) as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
