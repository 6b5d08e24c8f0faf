"""Which pictures a folder holds, asked by the names in a captions file, which may be hostile."""

import difflib
import os
import re
import unicodedata
from pathlib import Path

from src.datamodule.readers.encodings import UNPRINTABLE, printable
from src.utils.errors import UserError

DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class PictureRefused(Exception):
    """A name that gives no picture; `reason` is one of few, for counting, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class PictureFolder:
    """Answers from one listing per folder, so that 217,060 questions cost no system call each.

    Pictures are not opened. Names may reach into subfolders, never out of the folder: absolute paths, ".."
    and links that lead outside are refused.
    """

    def __init__(self, root: str | Path):
        self.root = Path(os.path.realpath(root))
        self._listings: dict[str, dict[str, str]] = {}  # subfolder ("" or "a/b/") -> name -> kind

    def find(self, name: str) -> tuple[str, str, str]:
        """Image id, absolute path and group of the picture called `name` in a captions file.

        The id is the name with "./" and doubled slashes gone and accents composed as on the disk, so that two
        spellings of one file are one image; the group is the id, or for a link the id of what it leads to.

        Raises:
            PictureRefused: the name is empty or unprintable, leads out of the folder, or no file has it.
            UserError: the folder of pictures cannot be listed.
        """
        folder, last = "", name
        kind = self._listing("").get(name)  # a name in the listing has no slash, and is not ".."
        if kind is None or not name.isprintable():
            folder, last = self._checked(name)
            listing = self._listing(folder)
            last = next((form for form in (last, *_forms(last)) if form in listing), last)
            kind = listing.get(last, "none")
        image_id = folder + last
        if kind == "file":
            return image_id, f"{self.root}{os.sep}{image_id}", image_id
        if kind == "link":
            return self._follow(image_id)
        raise PictureRefused("no image", printable(image_id) + ("" if kind == "none" else " is not a file"))

    def _checked(self, name: str) -> tuple[str, str]:
        """Subfolder with its closing slash, and the file's name, of an unusual name.

        Raises:
            PictureRefused: the name is empty or unprintable, or leads out of the folder.
        """
        shown = printable(name)
        if UNPRINTABLE.search(name):
            raise PictureRefused("unprintable file name", shown)
        parts = re.split(r"[\\/]", name)
        if name.startswith(("/", "\\")) or DRIVE.match(name) or ".." in parts:
            raise PictureRefused("outside the image folder", shown)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts:
            raise PictureRefused("no file name", shown)
        return "".join(f"{part}/" for part in parts[:-1]), parts[-1]

    def _listing(self, folder: str) -> dict[str, str]:
        if folder not in self._listings:
            self._listings[folder] = self._list(folder)
        return self._listings[folder]

    def _list(self, folder: str) -> dict[str, str]:
        """Name -> "file", "link" or "other" (folders, pipes, devices); empty when it is no folder within.

        Raises:
            UserError: the folder of pictures itself cannot be listed.
        """
        path = self.root / folder
        if folder and not _within(self.root, os.path.realpath(path)):
            return {}
        try:
            with os.scandir(path) as entries:
                return {entry.name: _kind(entry) for entry in entries}
        except OSError as error:
            if folder:
                return {}
            raise UserError(
                f"{str(self.root)!r} cannot be listed ({error.strerror or error}); expected the folder of "
                "pictures; check its permissions"
            ) from error

    def _follow(self, image_id: str) -> tuple[str, str, str]:
        """As `find`, for a symbolic link.

        Raises:
            PictureRefused: the link leads outside, to nothing, or to what is no file.
        """
        target = os.path.realpath(self.root / image_id)
        if not _within(self.root, target):
            raise PictureRefused(
                "outside the image folder", f"{printable(image_id)} is a link that leads out"
            )
        if not os.path.isfile(target):
            raise PictureRefused("no image", f"{printable(image_id)} is a link to no file")
        return image_id, target, os.path.relpath(target, self.root).replace(os.sep, "/")


def find_folder(key: str, path: str | Path, expected: str) -> Path:
    """`path` as an existing folder.

    Raises:
        UserError: it does not exist (the nearest existing name is suggested) or is no folder.
    """
    folder = Path(path).expanduser()
    try:
        if folder.is_dir():
            return folder
        fault = "is a file" if folder.exists() else f"does not exist{nearest(folder)}"
    except (OSError, ValueError) as error:  # a name too long, a NUL in it, no permission
        fault = f"cannot be opened ({error})"
    raise UserError(f"{key}={printable(str(path))!r} {fault}; expected {expected}; set {key}=...")


def find_file(key: str, path: str | Path, root: Path) -> Path:
    """`path`, which is in `root` or absolute, as an existing file.

    Raises:
        UserError: it does not exist (the nearest existing name is suggested) or is no file.
    """
    file = root / Path(path).expanduser()
    try:
        if file.is_file():
            return file
        fault = "is no file" if file.exists() else f"does not exist{nearest(file)}"
    except (OSError, ValueError) as error:  # a name too long, a NUL in it, no permission
        fault = f"cannot be opened ({error})"
    raise UserError(
        f"{key}={printable(str(path))!r} {fault}; expected a file in {printable(str(root))!r} or an absolute "
        f"path; set {key}=... or null to look for it"
    )


def nearest(path: Path) -> str:
    """ " (did you mean 'x'?)" with the most alike name that exists beside the first part that does not."""
    missing = path.absolute()
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    try:
        names = {name.lower(): name for name in os.listdir(missing.parent)}
    except OSError:
        return ""
    alike = difflib.get_close_matches(missing.name.lower(), names, n=1, cutoff=0.6)
    return f" (did you mean {str(missing.with_name(names[alike[0]]))!r}?)" if alike else ""


def _forms(name: str) -> list[str]:
    return [] if name.isascii() else [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def _within(root: Path, path: str) -> bool:
    return path == str(root) or path.startswith(f"{str(root).rstrip(os.sep)}{os.sep}")
