"""Find the files of a data set, and the images that a captions file names; names may be hostile."""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from src.datamodule.readers.encodings import UNPRINTABLE, printable
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
ABSOLUTE = re.compile(r"[\\/]|[A-Za-z]:[\\/]")


class ImageNotFound(Exception):
    """A name without an image; `reason` is one of few, for counting, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, printable(detail)


class ImageFolder:
    """Look up images by name in one listing of a folder and its subfolders; images are not opened.

    Links are followed wherever they lead, since they are the user's own; names that leave the folder by "..", or
    absolute ones, are refused, since captions files come from elsewhere.
    """

    def __init__(self, data_dir: Path, given: str | Path | None, names: Sequence[str]) -> None:
        folder = find_first("images_dir", given, data_dir, names, is_dir=True)
        if folder is None:
            raise UserError(
                f"datamodule.data_dir={str(data_dir)!r} has no image folder; "
                f"expected {' or '.join(names[:2])} in it; set datamodule.images_dir=..."
            )
        self.root, self._own_name = os.path.realpath(folder), folder.name.lower()
        self._paths: dict[str, str] = {}  # image id -> absolute path, links resolved
        self._group_of: dict[str, str] = {}  # target outside the folder -> id of the first link to it
        self._matched_nearly = False
        try:
            self._list("", (self.root,))
        except OSError as error:
            raise UserError(
                f"{self.root!r} cannot be listed ({error}); expected the image folder; check its permissions"
            ) from error

    def _list(self, prefix: str, parents: tuple[str, ...]) -> None:
        """Add the files of a subfolder; a link to one of its `parents` would be listed for ever."""
        with os.scandir(parents[-1]) as entries:
            for entry in entries:
                if entry.is_file():
                    path = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                    self._paths[prefix + entry.name] = path
                elif entry.is_dir() and not entry.name.startswith("."):
                    folder = os.path.realpath(entry.path)
                    if folder not in parents:
                        self._list(f"{prefix}{entry.name}/", (*parents, folder))

    def find(self, name: str) -> tuple[str, str, str]:
        """Return image id (path within the folder), absolute path and group (links to one target share it).

        Without a file of the exact name, these are tried: "\\" for "/", another case, no extension, the folder's own
        name in front, a bare name of a file in a subfolder. ImageNotFound where none or several match.
        """
        image_id = name if name in self._paths and name.isprintable() else self._match(name)
        path, inside = self._paths[image_id], f"{self.root.rstrip(os.sep)}{os.sep}"
        if path.startswith(inside):
            return image_id, path, path.removeprefix(inside).replace(os.sep, "/")
        return image_id, path, self._group_of.setdefault(path, image_id)

    def _match(self, name: str) -> str:
        parts = re.split(r"[\\/]", name)
        wanted = "/".join(part for part in parts if part not in ("", "."))
        if UNPRINTABLE.search(name):
            raise ImageNotFound("unprintable file name", name)
        if ABSOLUTE.match(name) or ".." in parts:
            raise ImageNotFound("outside the image folder", name)
        if not wanted:
            raise ImageNotFound("no file name", name)
        if wanted in self._paths:
            return wanted
        key = _fold(wanted)
        short = key.removeprefix(f"{self._own_name}/")
        ids = next((self._near_ids[k] for k in (key, short, f"//{short}") if k in self._near_ids), [])
        if not ids:
            raise ImageNotFound("no image", name)
        if len({self._paths[image_id] for image_id in ids}) > 1:
            raise ImageNotFound("ambiguous image name", f"{name}: {' or '.join(sorted(ids)[:2])}")
        if not self._matched_nearly:
            log.warning("some image names match a file nearly; the first: %r for %r", name, ids[0])
            self._matched_nearly = True
        return ids[0]

    @cached_property
    def _near_ids(self) -> dict[str, list[str]]:
        """Image ids by lower-case path ("sub/a.jpg", "sub/a") and name ("//a.jpg", "//a")."""
        near_ids: dict[str, list[str]] = {}
        for image_id in self._paths:
            key = _fold(image_id)
            stem, suffix = os.path.splitext(key)
            for form in (key, stem) if suffix in IMAGE_SUFFIXES else ():
                near_ids.setdefault(form, []).append(image_id)
                near_ids.setdefault(f"//{form.rpartition('/')[2]}", []).append(image_id)
        return near_ids


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def find_first(
    setting: str, given: str | Path | None, root: Path, names: Iterable[str], is_dir: bool = False
) -> Path | None:
    """Return what was given, as `find_path` does, else the first of `names` that is in `root`, else None."""
    if given is not None:
        return find_path(setting, given, root, is_dir)
    exists = os.path.isdir if is_dir else os.path.isfile
    return next((root / name for name in names if exists(root / name)), None)


def find_path(setting: str, given: str | Path, root: Path = Path(), is_dir: bool = False) -> Path:
    """Return a file or folder in `root` or absolute, `~` expanded; UserError, with the nearest name, without one."""
    path, kind = root / Path(given).expanduser(), "folder" if is_dir else "file"
    if os.path.isdir(path) if is_dir else os.path.isfile(path):
        return path
    problem = f"is no {kind}" if os.path.lexists(path) else "does not exist"
    with suppress(OSError):
        near = difflib.get_close_matches(path.name, os.listdir(path.absolute().parent), n=1)
        if near and near[0] != path.name:
            problem += f" (did you mean {str(path.with_name(near[0]))!r}?)"
    raise UserError(f"datamodule.{setting}={str(given)!r} {problem}; expected a {kind}; set datamodule.{setting}=...")
