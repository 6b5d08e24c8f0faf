"""Caption images: python -m src.predict PATH... checkpoint=<run, .ckpt, saved folder or hub id> [out=FILE]

PATH            an image, a folder (searched with its subfolders) or a pattern in quotes
checkpoint=     a run folder (its best), a .ckpt, `last`, a saved folder or a hub id
log_dir=        where `last` looks for the newest run; the project's logs/ when not given
out=            a .csv or .jsonl file, written whole or not at all; csv on standard output when not given
batch_size=16   images captioned at once
num_beams=0     beams of the search, 1 is greedy; 0: as the checkpoint was evaluated
max_length=0    tokens of a caption, start token included; 0: likewise
device=auto     auto, cpu, cuda, mps
precision=auto  auto (bf16 where the hardware has it), bf16, 32
base=           where the base weights are now, when they were moved since training

One row per image: image_id (the path below the folder, when PATH is one folder; else the path) and caption.
Links are followed. Control characters in file names are escaped. Unreadable images are named on standard error
and skipped.

Exit status: 0 every image was captioned; 1 none was, or a mistake in the command; 2 some could not be read or
got an empty caption; 130 stopped.
"""

import csv
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from tqdm import tqdm

from src.utils.entry import parse_command, run_command
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import visible

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
DEFAULTS = {
    "checkpoint": None, "log_dir": "", "out": "", "batch_size": 16, "num_beams": 0, "max_length": 0, "device": "auto",
    "precision": "auto", "base": "",
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Write image_id and caption of each image to `out` or standard output; return the exit status.

    UserErrors name mistakes in the command, a file that cannot be written, and that no image was captioned.
    """
    settings = parse_command(arguments, DEFAULTS, positional="paths")
    paths, out, batch_size = (settings.pop(name) for name in ("paths", "out", "batch_size"))
    if out and (Path(out).suffix not in (".csv", ".jsonl") or Path(out).is_dir()):
        raise UserError(f"out={out!r}; expected a .csv or .jsonl file; set out=captions.csv")
    images = find_images(paths)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    from src.captioner import Captioner
    from src.models.kernels.linear import tune_malloc

    tune_malloc()
    captions = Captioner.from_checkpoint(**settings).stream(images, batch_size)
    num_unreadable = num_empty = num_rows = 0
    bar = tqdm(images.values(), unit=" images", leave=False, disable=None)  # only on a terminal
    try:
        with atomic_write(out) if out else nullcontext(sys.stdout) as file:
            for image_id, caption in zip(bar, captions, strict=True):
                if not isinstance(caption, str):
                    num_unreadable += 1
                    bar.write(f"skipped: {caption}", file=sys.stderr)
                    continue
                if not caption.strip():
                    num_empty += 1
                    bar.write(f"empty caption: {visible(image_id)}", file=sys.stderr)
                write_row(file, image_id, caption, is_json=out.endswith(".jsonl"), is_first=not num_rows)
                num_rows += 1
            if num_rows == num_empty:
                found = f"{num_unreadable} could not be read and {num_empty} got empty captions"
                raise UserError(f"of {len(images)} images {found}; expected at least one caption; see the lines above")
    except OSError as error:
        if not out:  # the reader of the pipe is gone
            raise
        reason = f"out={out!r} cannot be written ({error.strerror})"
        raise UserError(f"{reason}; expected a folder with room; set out=<another file>") from error
    counts = {"captioned": num_rows - num_empty, "could not be read": num_unreadable, "empty captions": num_empty}
    print("; ".join(f"{count} {name}" for name, count in counts.items() if count), file=sys.stderr)
    return 2 if num_unreadable or num_empty else 0


def find_images(paths: Sequence[str]) -> dict[str, str]:
    """Find the image files of files, folders and patterns: {absolute path: image_id}.

    paths: files of any name; folders, searched with subfolders and links for image suffixes, hidden names excluded;
    patterns with `*`, `?`, `[...]` or `**`. Each file counts once. UserError: a path names nothing, or no image.
    """
    found: dict[str, str] = {}
    for path in paths:
        is_folder = os.path.isdir(path)
        for file in _walk(path) if is_folder else _matches(path):
            image_id = Path(file).relative_to(path).as_posix() if is_folder and len(paths) == 1 else file
            found.setdefault(os.path.abspath(file), image_id)  # two links to one file are two images
    if not found:
        raise UserError(f"PATH={' '.join(paths)} holds no image; expected files, folders or patterns; name one")
    return found


def _walk(folder: str) -> Iterator[str]:
    """Yield the image files below a folder, a folder's own before its subfolders'; each real folder once."""
    visited = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        visited.add(os.path.realpath(root))
        shown = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in shown if os.path.realpath(os.path.join(root, name)) not in visited]
        images = (name for name in sorted(files) if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        yield from (os.path.join(root, name) for name in images)


def _matches(path: str) -> list[str]:
    if os.path.lexists(path):
        return [path]
    matched = sorted(file for file in glob.glob(path, recursive=True) if not os.path.isdir(file))
    if not matched:
        what = "matches no file" if glob.has_magic(path) else "does not exist"
        raise UserError(f"{path!r} {what}; expected an image, a folder or a pattern; correct the path")
    return matched


def write_row(file: IO[str], image_id: str, caption: str, is_json: bool, is_first: bool) -> None:
    """Write a row, the first of a csv with a header; on a terminal, captions too are escaped."""
    row = {"image_id": visible(image_id), "caption": visible(caption) if file.isatty() else caption}
    if is_json:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        csv.writer(file, lineterminator="\n").writerows([*([row.keys()] if is_first else []), row.values()])


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
