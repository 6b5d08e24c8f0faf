"""The pictures that a person means by files, folders and patterns."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.utils.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


@dataclass(frozen=True, slots=True)
class PicturePath:
    """A picture file that was not opened yet.

    image_id: its path below the folder, where one folder is all that was asked for; else its path as given.
    """

    image_id: str
    path: str


def find_pictures(words: Sequence[str]) -> tuple[list[PicturePath], int]:
    """The files that the words mean, each once, and how many files of folders were no pictures by their name.

    words: files, whatever they are called; folders, searched through with their subfolders for files with a
    picture's suffix, hidden ones left out; patterns with `*`, `?`, `[...]` or `**`. Folders and patterns give
    their files in order of name.

    Raises:
        UserError: a word that names nothing, or nothing at all was found.
    """
    found: dict[str, PicturePath] = {}
    others = 0
    for word in words:
        folder = os.path.isdir(word)
        for path in _listed(word) if folder else _matched(word):
            if folder and not path.lower().endswith(SUFFIXES):
                others += 1
                continue
            image_id = Path(path).relative_to(word).as_posix() if folder and len(words) == 1 else path
            found.setdefault(os.path.realpath(path), PicturePath(image_id, path))
    if not found:
        raise UserError(
            f"{' '.join(words) or 'no PATH'}: no picture there; expected picture files, folders or patterns; "
            "name one"
        )
    return list(found.values()), others


def _listed(folder: str) -> Iterator[str]:
    """Every file below a folder that is not hidden, a folder's own files before those of its subfolders."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(root, name) for name in sorted(files) if not name.startswith("."))


def _matched(word: str) -> list[str]:
    """The file, or the files that a pattern matches.

    Raises:
        UserError: there is none.
    """
    if os.path.lexists(word):
        return [word]
    matched = sorted(path for path in glob.glob(word, recursive=True) if not os.path.isdir(path))
    if not matched:
        what = "matches no file" if glob.has_magic(word) else "does not exist"
        raise UserError(f"{word!r} {what}; expected a picture, a folder or a pattern; mend the path")
    return matched
