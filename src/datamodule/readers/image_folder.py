"""Find the files and folders of a data set, and the images that a captions file names; names may be hostile."""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from src.datamodule.readers.encodings import UNPRINTABLE, printable
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
Given = str | Path | None
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

    data_dir: holds the folder; given: it, in `data_dir` or absolute; names: tried where `given` is None.
    Raises UserError where there is no such folder or it cannot be listed.
    """

    def __init__(self, data_dir: Path, given: Given, names: Sequence[str]) -> None:
        folder = find_first("images_dir", given, data_dir, names, is_dir=True)
        if folder is None:
            raise UserError(
                f"datamodule.data_dir={str(data_dir)!r} has no image folder; "
                f"expected {' or '.join(names[:2])} in it; set datamodule.images_dir=..."
            )
        self.root, self._own_name = os.path.realpath(folder), folder.name.lower()
        self._paths: dict[str, str] = {}  # image id -> absolute path, links resolved
        self._group_of: dict[str, str] = {}  # target outside the folder -> id of the first link to it
        self._near_ids: dict[str, list[str]] = {}  # see `_index`
        self._near: dict[str, str] = {}  # name in the captions file -> id of the near match
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
        """Return image id, absolute path and group of the image called `name` in a captions file.

        The id is the path within the folder as it is on the disk, and the group is the id; files that are links to one
        target share a group, so that they share a split. Where no file has the exact name, these are tried: "\\" for
        "/", another case, no extension, the folder's own name in front, a bare name of a file in a subfolder.
        Raises ImageNotFound where the name is unusable or leaves the folder, or none or several files match it.
        """
        image_id = name if name in self._paths and name.isprintable() else self._match(name)
        path, inside = self._paths[image_id], f"{self.root.rstrip(os.sep)}{os.sep}"
        if path.startswith(inside):
            return image_id, path, path.removeprefix(inside).replace(os.sep, "/")
        return image_id, path, self._group_of.setdefault(path, image_id)

    def log_near_matches(self) -> None:
        """Log how many names matched nearly, with an example."""
        if self._near:
            example = next(iter(self._near.items()))
            log.warning("%d image names matched nearly, for example %r: %r", len(self._near), *example)

    def _match(self, name: str) -> str:
        parts = re.split(r"[\\/]", name)
        if UNPRINTABLE.search(name):
            raise ImageNotFound("unprintable file name", name)
        if ABSOLUTE.match(name) or ".." in parts:
            raise ImageNotFound("outside the image folder", name)
        wanted = "/".join(part for part in parts if part not in ("", "."))
        if not wanted:
            raise ImageNotFound("no file name", name)
        if wanted in self._paths:
            return wanted
        key = _fold(wanted)
        short = key.removeprefix(f"{self._own_name}/")
        near_ids = self._index()
        ids = near_ids.get(key) or near_ids.get(short) or near_ids.get(f"//{short}") or []
        if not ids:
            raise ImageNotFound("no image", name)
        if len({self._paths[image_id] for image_id in ids}) > 1:
            raise ImageNotFound("ambiguous image name", f"{name}: {' or '.join(sorted(ids)[:2])}")
        self._near[name] = ids[0]
        return ids[0]

    def _index(self) -> dict[str, list[str]]:
        """Image ids by lower-case path ("sub/a.jpg", "sub/a") and name ("//a.jpg", "//a"); made on first use."""
        if not self._near_ids:
            for image_id in self._paths:
                key = _fold(image_id)
                stem, suffix = os.path.splitext(key)
                if suffix in IMAGE_SUFFIXES:
                    for form in (key, stem):
                        self._near_ids.setdefault(form, []).append(image_id)
                        self._near_ids.setdefault(f"//{form.rpartition('/')[2]}", []).append(image_id)
        return self._near_ids


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def find_first(
    setting: str, given: Given, root: Path, names: Iterable[str], is_dir: bool = False
) -> Path | None:
    """Return what was given, as `find_path` does, else the first of `names` that is in `root`, else None."""
    if given is not None:
        return find_path(setting, given, root, is_dir)
    exists = os.path.isdir if is_dir else os.path.isfile
    return next((root / name for name in names if exists(root / name)), None)


def find_path(setting: str, given: str | Path, root: Path = Path(), is_dir: bool = False) -> Path:
    """Return a file or folder in `root` or absolute, `~` expanded.

    Raises UserError where it does not exist (the nearest existing name is suggested) or is of the other kind.
    """
    path, kind = root / Path(given).expanduser(), "folder" if is_dir else "file"
    if os.path.isdir(path) if is_dir else os.path.isfile(path):
        return path
    problem = f"is no {kind}" if os.path.lexists(path) else f"does not exist{_nearest(path)}"
    place = f" in {str(root)!r}" if root.parts else ""
    raise UserError(
        f"datamodule.{setting}={str(given)!r} {problem}; expected a {kind}{place}; "
        f"set datamodule.{setting}=..."
    )


def _nearest(path: Path) -> str:
    """Return " (did you mean 'x'?)" with the existing name closest to the first part that does not exist."""
    missing = path.absolute()
    while not os.path.isdir(missing.parent) and missing.parent != missing:
        missing = missing.parent
    with suppress(OSError):
        for name in difflib.get_close_matches(missing.name, os.listdir(missing.parent), n=1):
            return f" (did you mean {str(missing.with_name(name))!r}?)"
    return ""
