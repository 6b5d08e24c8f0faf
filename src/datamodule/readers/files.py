"""Find and read the files of a data set, and look up the images that a captions file names; names may be hostile."""

import codecs
import difflib
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from src.utils.errors import UserError
from src.utils.logging import visible

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".avif", ".heic", ".heif",
)  # fmt: skip
IMAGE_FOLDERS = (
    "Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images/flickr30k_images",
    "flickr30k_images", "flickr30k-images", "figures", "Figures", "imgs", "photos",
)  # fmt: skip
SPLITS = dict.fromkeys(("train", "training", "restval"), "train") | dict.fromkeys(("test", "testing"), "test")
SPLITS |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
ABSOLUTE = re.compile(r"[\\/]|[A-Za-z]:[\\/]")
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes that are not UTF-8
# Control characters, lone surrogates, byte-order marks, non-characters: no file or terminal takes them.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 or UTF-16 file with its byte-order mark; they end in LF, CRLF or CR.

    Bytes that are not UTF-8 are read as Windows-1252. UserError where the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if is_utf16 else "utf-8-sig"
        errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
        with open(path, encoding=encoding, errors=errors) as lines:
            for line in lines:
                yield ESCAPED_BYTE.sub(_as_western, line).removesuffix("\n")
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}); expected a text file; check its mode") from error


def _as_western(found: re.Match[str]) -> str:
    byte = found[0].encode("utf-8", "surrogateescape")
    return byte.decode("cp1252", "ignore") or byte.decode("latin-1")


def clean_caption(text: str) -> str:
    """Return the caption with unprintable characters and runs of whitespace each turned into one blank."""
    return " ".join(UNPRINTABLE.sub(" ", text).split())


def printable(text: str, limit: int = 200) -> str:
    """Return `text` for lists and messages: unprintable characters as \\x00 or \\udcff, cut after `limit`."""
    return visible(text if len(text) <= limit else f"{text[:limit]}...")


def split_of_path(path: PurePath) -> str:
    """Return the split that a folder or file is named after, else "": "val/a.csv", "train-00000-of-00004.parquet"."""
    words = [part.lower() for part in path.parts[:-1]] + re.findall(r"[a-z]+", path.stem.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), "")


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
        try:
            self._list("", (self.root,))
        except OSError as error:
            raise UserError(f"{self.root!r} cannot be listed ({error}); expected images; check its mode") from error
        self.names = sorted(self._paths)  # ids of all files, images or not

    def _list(self, prefix: str, parents: tuple[str, ...]) -> None:
        """Add the files of a subfolder; a link to one of its `parents` would be listed for ever."""
        with os.scandir(parents[-1]) as entries:
            for entry in entries:
                path = os.path.realpath(entry.path) if entry.is_symlink() or entry.is_dir() else entry.path
                if entry.is_file():
                    self._paths[prefix + entry.name] = path
                elif entry.is_dir() and not entry.name.startswith(".") and path not in parents:
                    self._list(f"{prefix}{entry.name}/", (*parents, path))

    def has(self, name: str, base: str = "") -> bool:
        """Return whether a name means an image, or several."""
        with suppress(ImageNotFound):
            return bool(self._match(name, base))
        return False

    def find(self, name: str, base: str = "", split: str = "") -> tuple[str, str, str]:
        """Return image id (path within the folder), absolute path and group (links to one target share it).

        `base`: folder of the captions file within `data_dir`, "" or "sub/". Without a file of the exact name in `base`
        or the image folder, these are tried: "\\" for "/", another case, no extension, the folder's own name in front,
        a bare name of a file in a subfolder; of several the one in `base`, then the one in a folder named after
        `split`. ImageNotFound where none or several match.
        """
        ids = self._match(name, base)
        if len(ids) > 1:
            ids = [found for found in ids if f"{self._prefix}{found}".startswith(base)] or ids
            ids = [found for found in ids if split and split_of_path(PurePath(found).parent / "_") == split] or ids
        paths = {self._paths.get(image_id, image_id) for image_id in ids}
        if len(paths) > 1:
            raise ImageNotFound("ambiguous image name", f"{name}: {' or '.join(sorted(ids)[:2])}")
        path, inside = paths.pop(), f"{self.root.rstrip(os.sep)}{os.sep}"
        if path.startswith(inside):
            return ids[0], path, path.removeprefix(inside).replace(os.sep, "/")
        return ids[0], path, self._group_of.setdefault(path, ids[0])

    def _match(self, name: str, base: str) -> list[str]:
        """Return the ids of the images that a name could mean, or the absolute name of one; ImageNotFound without."""
        if UNPRINTABLE.search(name):
            raise ImageNotFound("unprintable file name", name)
        path = name.replace("\\", "/")
        if not path.strip("./"):
            raise ImageNotFound("outside the image folder" if ".." in path else "no file name", name)
        if ABSOLUTE.match(name) and name.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(name):
            inside = f"{self.root}{os.sep}"
            return [name.removeprefix(inside).replace(os.sep, "/") if name.startswith(inside) else name]
        within, alone = (posixpath.normpath(start + path) for start in (base, ""))
        wanted = [within.removeprefix(self._prefix), alone] if within.startswith(self._prefix) else [alone]
        if ABSOLUTE.match(name) or all(name.startswith("../") for name in wanted):
            raise ImageNotFound("outside the image folder", name)
        short = _fold(alone).removeprefix(f"{self._own_name}/")
        exact = ([image_id] for image_id in (*wanted, name) if image_id in self._paths)
        nearly = (self._near_ids.get(key) for key in (*map(_fold, wanted), short, f"//{short}"))
        if found := next(exact, None) or next(filter(None, nearly), None):
            return found
        raise ImageNotFound("no image", name)

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


def find_first(key: str, given: Any, root: Path, names: Sequence[str], is_dir: bool = False) -> Path | None:
    """Return what was given, as `find_path` does, else the first of `names` that is in `root`, else None."""
    if given is not None:
        return find_path(key, given, root, is_dir)
    return next((root / name for name in names if (root / name).is_dir() == is_dir and (root / name).exists()), None)


def find_path(key: str, given: str | Path, root: Path = Path(), is_dir: bool = False) -> Path:
    """Return a file or folder in `root` or absolute, `~` expanded; UserError, with the nearest name, without one."""
    path, kind = root / Path(given).expanduser(), "folder" if is_dir else "file"
    if os.path.isdir(path) if is_dir else os.path.isfile(path):
        return path
    problem = f"is no {kind}" if os.path.lexists(path) else "does not exist"
    siblings = [one.name for one in path.absolute().parent.glob("*") if one.name != path.name]
    if near := difflib.get_close_matches(path.name, siblings, n=1):
        problem += f" (did you mean {str(path.with_name(near[0]))!r}?)"
    raise UserError(f"datamodule.{key}={str(given)!r} {problem}; expected a {kind}; set datamodule.{key}=...")
