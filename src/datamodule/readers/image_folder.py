"""Find the files of a data set, and the images that a captions file names; names may be hostile."""

import difflib
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from src.datamodule.readers.encodings import UNPRINTABLE, printable
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm"),
    *(".avif", ".heic", ".heif"),
)
IMAGE_FOLDERS = (
    *("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images/flickr30k_images"),
    *("flickr30k_images", "flickr30k-images", "figures", "Figures", "imgs", "photos"),
)
ABSOLUTE = re.compile(r"[\\/]|[A-Za-z]:[\\/]")


class ImageNotFound(Exception):
    """A name without an image; `reason` is one of few, for counting, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, printable(detail)


class ImageFolder:
    """Look up images by name in one listing of a folder and its subfolders; images are not opened.

    The folder is `given`, else the first of IMAGE_FOLDERS in `data_dir`, else `data_dir` itself. Links are followed
    wherever they lead, since they are the user's own, and so are absolute names of image files; names that leave the
    folder by ".." are refused. UserError where the folder cannot be listed.
    """

    def __init__(self, data_dir: Path, given: str | Path | None = None) -> None:
        self.data_dir = os.path.realpath(data_dir)
        folder = find_first("images_dir", given, data_dir, IMAGE_FOLDERS, is_dir=True) or data_dir
        self.root, self._own_name = os.path.realpath(folder), folder.name.lower()
        self._prefix = "" if folder == data_dir else f"{os.path.relpath(folder, data_dir).replace(os.sep, '/')}/"
        self._paths: dict[str, str] = {}  # image id -> absolute path, links resolved
        self._group_of: dict[str, str] = {}  # target outside the folder -> id of the first link to it
        self._matched_nearly = False
        try:
            self._list("", (self.root,))
        except OSError as error:
            raise UserError(
                f"{self.root!r} cannot be listed ({error}); expected the image folder; check its permissions"
            ) from error

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of all files, images or not, in order of their names."""
        return iter(sorted(self._paths))

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

    def has(self, name: str, base: str = "") -> bool:
        """Return whether `find` would find an image."""
        with suppress(ImageNotFound):
            return bool(self._match(name, base))
        return False

    def find(self, name: str, base: str = "") -> tuple[str, str, str]:
        """Return image id (path within the folder), absolute path and group (links to one target share it).

        `base`: folder of the captions file within `data_dir`, "" or "sub/". Without a file of the exact name in `base`
        or the image folder, these are tried: "\\" for "/", another case, no extension, the folder's own name in front,
        a bare name of a file in a subfolder. ImageNotFound where none or several match.
        """
        image_id = self._match(name, base)
        if posixpath.basename(image_id) != posixpath.basename(name) and not self._matched_nearly:
            log.warning("some image names match a file nearly; the first: %r for %r", image_id, name)
            self._matched_nearly = True
        path, inside = self._paths.get(image_id, image_id), f"{self.root.rstrip(os.sep)}{os.sep}"
        if path.startswith(inside):
            return image_id, path, path.removeprefix(inside).replace(os.sep, "/")
        return image_id, path, self._group_of.setdefault(path, image_id)

    def _match(self, name: str, base: str = "") -> str:
        if UNPRINTABLE.search(name):
            raise ImageNotFound("unprintable file name", name)
        if not base and name in self._paths:
            return name
        path = name.replace("\\", "/")
        if ABSOLUTE.match(name):
            inside, is_image = f"{self.root}{os.sep}", name.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(name)
            if not is_image:
                raise ImageNotFound("outside the image folder", name)
            return name.removeprefix(inside).replace(os.sep, "/") if name.startswith(inside) else name
        within = posixpath.normpath(base + path)
        wanted = [within.removeprefix(self._prefix)] if within.startswith(self._prefix) else []
        wanted.append(posixpath.normpath(path))
        if not path.strip("./"):
            raise ImageNotFound("outside the image folder" if ".." in path else "no file name", name)
        if all(name.startswith("../") for name in wanted):
            raise ImageNotFound("outside the image folder", name)
        for image_id in wanted:
            if image_id in self._paths:
                return image_id
        key = _fold(wanted[-1])
        short = key.removeprefix(f"{self._own_name}/")
        keys = (*map(_fold, wanted), short, f"//{short}")
        ids = next((self._near_ids[key] for key in keys if key in self._near_ids), [])
        if base and len(ids) > 1:
            ids = [found for found in ids if f"{self._prefix}{found}".startswith(base)] or ids
        if not ids:
            raise ImageNotFound("no image", name)
        if len({self._paths[image_id] for image_id in ids}) > 1:
            raise ImageNotFound("ambiguous image name", f"{name}: {' or '.join(sorted(ids)[:2])}")
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
