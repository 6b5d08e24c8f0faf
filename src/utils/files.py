"""Write files atomically: whole or not at all."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; when the block ends without an error, rename it to `path`.

    A reader sees the old file or the new one, never half of one, also after a power cut. Where the system has
    files without a name (Linux), a process that is killed leaves nothing behind either.

    Args:
        path: the file to make or replace; its folder is created.
        mode: "w" (UTF-8 text, newlines as written) or "wb".

    Raises:
        OSError: the folder cannot be written or the disk is full; the file at `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    handle, name = _open_temporary(path)
    try:
        with os.fdopen(handle, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(handle)
            name = name or _give_name(handle, path)
        os.chmod(name, _default_mode())
        os.replace(name, path)
    except BaseException:
        if name:
            Path(name).unlink(missing_ok=True)
        raise


def _open_temporary(path: Path) -> tuple[int, str]:
    """A new file in the folder of `path`: its descriptor and its name, "" where it needs none yet."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        with suppress(OSError):  # not every file system has files without a name
            return os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o600), ""
    return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")


def _give_name(handle: int, path: Path) -> str:
    """Name a whole file that has no name yet, beside `path`."""
    name = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp"))
    # `src_dir_fd` makes Python follow the link in /proc, which is otherwise linked itself
    os.link(f"/proc/self/fd/{handle}", name, src_dir_fd=handle, follow_symlinks=True)
    return name


@cache
def _default_mode() -> int:
    """Return the mode of a new file under this process's umask, without changing the umask for other threads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new"
        path.touch()
        return path.stat().st_mode & 0o777
