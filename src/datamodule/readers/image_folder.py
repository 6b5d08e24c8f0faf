"""Find the images that a captions file names, exactly or nearly; the names may be hostile."""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from src.datamodule.readers.encodings import UNPRINTABLE, printable
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm")


class ImageNotFound(Exception):
    """A name without an image; `reason` is one of few, for counting, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ImageFolder:
    """Look up images by name in one listing per folder: 217,060 lookups need no system call each.

    Images are not opened. Links are followed wherever they lead, since they are the user's own; names that leave the
    folder by "..", or absolute ones, are refused, since captions files come from elsewhere.
    """

    def __init__(self, root: str | Path):
        self.root = Path(os.path.realpath(root))
        self._own_name = Path(root).name.lower()
        self._listings: dict[str, dict[str, str]] = {}  # subfolder ("" or "a/b/") -> name -> kind
        self._index: dict[str, list[str]] | None = None  # lower-case stem -> paths within the folder
        self._group_of: dict[str, str] = {}  # target of a link out of the folder -> group
        self._near: dict[str, str] = {}  # name in the captions file -> path of the near match

    def find(self, name: str) -> tuple[str, str, str]:
        """Return image id, absolute path and group of the image called `name` in a captions file.

        The id is the path within the folder as it is on the disk, so that two spellings of one file are one image. The
        group is the id; files that are links to one target share a group, so that they share a split. Where no file
        has the exact name, these are tried: "\\" for "/", another case, no extension, the folder's own name in front,
        a bare name of a file in a subfolder.

        Raises:
            ImageNotFound: the name is empty or unprintable, leaves the folder, or none or several files match it.
            UserError: the folder cannot be listed.
        """
        folder, last = "", name
        kind = self._listing("").get(name)  # a name in the listing has no slash, and is not ".."
        if kind is None or not name.isprintable():
            folder, last = self._parse(name)
            listing = self._listing(folder)
            last = next((form for form in (last, *_unicode_forms(last)) if form in listing), last)
            kind = listing.get(last, "none")
        image_id = folder + last
        if kind == "none":
            image_id = self._near_match(image_id)
            folder, _, last = image_id.rpartition("/")
            kind = self._listing(f"{folder}/" if folder else "").get(last, "none")
            self._near[name] = image_id
        if kind == "file":
            return image_id, f"{self.root}{os.sep}{image_id}", image_id
        if kind == "link":
            target = os.path.realpath(self.root / image_id)
            inside = target.startswith(f"{str(self.root).rstrip(os.sep)}{os.sep}")
            relative = os.path.relpath(target, self.root).replace(os.sep, "/") if inside else image_id
            return image_id, target, relative if inside else self._group_of.setdefault(target, image_id)
        raise ImageNotFound("no image", f"{printable(image_id)} is not a file")

    def log_near_matches(self) -> None:
        """Log how many names matched nearly, with an example."""
        for name, image_id in list(self._near.items())[:1]:
            log.warning("%d image names matched nearly, for example %r: %r", len(self._near), name, image_id)

    def _parse(self, name: str) -> tuple[str, str]:
        """Subfolder with its closing slash, and base name, of a name that is not in the listing.

        Raises:
            ImageNotFound: the name is empty or unprintable, or leaves the folder.
        """
        if UNPRINTABLE.search(name):
            raise ImageNotFound("unprintable file name", printable(name))
        parts = re.split(r"[\\/]", name)
        if name.startswith(("/", "\\")) or DRIVE.match(name) or ".." in parts:
            raise ImageNotFound("outside the image folder", printable(name))
        parts = [part for part in parts if part not in ("", ".")]
        if not parts:
            raise ImageNotFound("no file name", printable(name))
        return "".join(f"{part}/" for part in parts[:-1]), parts[-1]

    def _near_match(self, name: str) -> str:
        """The path of the one file that `name` nearly matches.

        Raises:
            ImageNotFound: there is none, or there are several.
        """
        wanted = unicodedata.normalize("NFC", name).lower()
        stem, suffix = _split_suffix(wanted.rpartition("/")[2])
        same_stem = [
            path for path in self._by_stem().get(stem, []) if not suffix or path.lower().endswith(suffix)
        ]
        without_own = wanted.removeprefix(f"{self._own_name}/")
        for form in (wanted, without_own):
            whole = form if suffix else f"{form}."
            matches = [
                path for path in same_stem if unicodedata.normalize("NFC", path).lower().startswith(whole)
            ]
            if matches:
                break
        else:
            matches = same_stem if "/" not in without_own else []
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ImageNotFound("ambiguous image name", f"{printable(name)}: {' or '.join(matches[:2])}")
        raise ImageNotFound("no image", printable(name))

    def _by_stem(self) -> dict[str, list[str]]:
        """Lower-case base names without extension of all images, subfolders included; made on first use."""
        if self._index is None:
            self._index, visited = {}, set()
            for folder, subfolders, names in os.walk(self.root, followlinks=True):
                real = os.path.realpath(folder)
                subfolders[:] = [] if real in visited else [name for name in subfolders if name[0] != "."]
                relative = os.path.relpath(folder, self.root).replace(os.sep, "/")
                prefix = "" if relative == "." else f"{relative}/"
                for name in names if real not in visited else ():
                    stem, suffix = _split_suffix(unicodedata.normalize("NFC", name).lower())
                    if suffix:
                        self._index.setdefault(stem, []).append(prefix + name)
                visited.add(real)
        return self._index

    def _listing(self, folder: str) -> dict[str, str]:
        if folder not in self._listings:
            self._listings[folder] = self._list(folder)
        return self._listings[folder]

    def _list(self, folder: str) -> dict[str, str]:
        """Name -> "file", "link" or "other" (folders, pipes, links to no file); empty when it is no folder.

        Raises:
            UserError: the image folder itself cannot be listed.
        """
        path = self.root / folder
        try:
            linked = bool(folder) and os.path.realpath(path) != str(path)
            with os.scandir(path) as entries:
                return {
                    entry.name: "other"
                    if not entry.is_file()
                    else "link"
                    if linked or entry.is_symlink()
                    else "file"
                    for entry in entries
                }
        except (OSError, ValueError) as error:
            if folder:
                return {}
            raise UserError(
                f"{str(self.root)!r} cannot be listed ({error}); expected the image folder; check its permissions"
            ) from error


def find_subfolder(root: Path, key: str, given: str | Path | None, names: Iterable[str]) -> Path:
    """Return the folder that was given, else the first of `names` that is in `root`.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        return find_folder(key, root / Path(given).expanduser(), "the image folder")
    names = list(names)
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise UserError(
        f"datamodule.data_dir={printable(str(root))!r} has no image folder; expected {' or '.join(names[:2])} in it; "
        f"set {key}=..."
    )


def find_folder(key: str, path: str | Path, expected: str) -> Path:
    """Return `path` as an existing folder, `~` expanded.

    Raises:
        UserError: it does not exist (the nearest existing name is suggested) or is no folder.
    """
    folder = Path(path).expanduser()
    try:
        if folder.is_dir():
            return folder
        error = "is a file" if folder.exists() else f"does not exist{nearest(folder)}"
    except (OSError, ValueError) as cause:  # a name too long, a NUL in it, no permission
        error = f"cannot be opened ({cause})"
    raise UserError(f"{key}={printable(str(path))!r} {error}; expected {expected}; set {key}=...")


def find_file(key: str, path: str | Path, root: Path) -> Path:
    """Return `path`, which is in `root` or absolute, as an existing file.

    Raises:
        UserError: it does not exist (the nearest existing name is suggested) or is no file.
    """
    file = root / Path(path).expanduser()
    try:
        if file.is_file():
            return file
        error = "is no file" if file.exists() else f"does not exist{nearest(file)}"
    except (OSError, ValueError) as cause:  # a name too long, a NUL in it, no permission
        error = f"cannot be opened ({cause})"
    raise UserError(
        f"{key}={printable(str(path))!r} {error}; expected a file in {printable(str(root))!r} or an absolute "
        f"path; set {key}=... or null to look for it"
    )


def nearest(path: Path) -> str:
    """Return " (did you mean 'x'?)" with the existing name closest to the first part that does not exist."""
    missing = path.absolute()
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    try:
        names = {name.lower(): name for name in os.listdir(missing.parent)}
    except OSError:
        return ""
    alike = difflib.get_close_matches(missing.name.lower(), names, n=1, cutoff=0.6)
    return f" (did you mean {str(missing.with_name(names[alike[0]]))!r}?)" if alike else ""


def _split_suffix(name: str) -> tuple[str, str]:
    """Stem and image extension of a base name; "" where it has none."""
    stem, suffix = os.path.splitext(name)
    return (stem, suffix) if suffix in IMAGE_SUFFIXES else (name, "")


def _unicode_forms(name: str) -> list[str]:
    return [] if name.isascii() else [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
