"""Caption images: python -m src.predict PATH... checkpoint=<run, .ckpt, saved folder or hub id> [out=FILE]

PATH            an image, a folder (searched with its subfolders) or a pattern in quotes
checkpoint=     a run folder (its best), a .ckpt, `last`, a saved folder or a hub id
log_dir=        where `last` looks for the newest run; the project's logs/ when not given
out=            a .csv or .jsonl file, written whole or not at all; standard output when not given
format=         csv or jsonl; by the name of `out` when not given, else csv
batch_size=16   images captioned at once
num_beams=0     beams of the search, 1 is greedy; 0: as the checkpoint was evaluated
max_length=0    tokens of a caption, start token included; 0: as the checkpoint was evaluated
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
from typing import IO, TYPE_CHECKING

from tqdm import tqdm

from src.utils.entry import parse_command, run_command
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import visible

if TYPE_CHECKING:
    from src.captioner import Captioner

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
DEFAULTS = {
    "checkpoint": None, "log_dir": "", "out": "", "format": "", "batch_size": 16, "num_beams": 0,
    "max_length": 0, "device": "auto", "precision": "auto", "base": "",
}  # fmt: skip


def find_images(paths: Sequence[str]) -> dict[str, str]:
    """Find the image files of files, folders and patterns: {path: image_id}.

    paths: files of any name; folders, searched with their subfolders, links included, for image suffixes,
    hidden names excluded; patterns with `*`, `?`, `[...]` or `**`. Each file counts once, sorted by name.
    A UserError where a path names nothing, or no image was found.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    for path in paths:
        is_folder = os.path.isdir(path)
        for file in _walk(path) if is_folder else _matches(path):
            if (absolute := os.path.abspath(file)) not in seen:  # two links to one file are two images
                seen.add(absolute)
                is_only = is_folder and len(paths) == 1
                found[file] = Path(file).relative_to(path).as_posix() if is_only else file
    if not found:
        raise UserError(
            f"{' '.join(paths) or 'no PATH'}: no image there; expected files, folders or patterns; name one"
        )
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
    """Return the file, or the files that a pattern matches; raises UserError where there is none."""
    if os.path.lexists(path):
        return [path]
    matched = sorted(file for file in glob.glob(path, recursive=True) if not os.path.isdir(file))
    if not matched:
        what = "matches no file" if glob.has_magic(path) else "does not exist"
        raise UserError(f"{path!r} {what}; expected an image, a folder or a pattern; correct the path")
    return matched


def write_row(file: IO[str], form: str, row: dict[str, str], is_first: bool) -> None:
    """Write a row, the first with a header; on a terminal, captions too are escaped."""
    row = {name: visible(text) if name == "image_id" or file.isatty() else text for name, text in row.items()}
    if form == "jsonl":
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        csv.writer(file, lineterminator="\n").writerows([*([row.keys()] if is_first else []), row.values()])


def predict(captioner: "Captioner", images: dict[str, str], out: str, form: str, batch_size: int = 16) -> int:
    """Write image_id and caption of each image ({path: image_id}) to `out`, "" for standard output, in order.

    A file appears when all is done. Images without a caption are named on standard error. Returns the exit status;
    a UserError where the file cannot be written, or no image was captioned.
    """
    num_unreadable = num_empty = num_rows = 0
    bar = tqdm(images.items(), unit=" images", leave=False, disable=None)  # only on a terminal
    try:
        with atomic_write(out) if out else nullcontext(sys.stdout) as file:
            for (path, image_id), caption in zip(bar, captioner.stream(images, batch_size), strict=True):
                if not isinstance(caption, str):
                    num_unreadable += 1
                    bar.write(f"skipped: {caption}", file=sys.stderr)
                    continue
                if not caption.strip():
                    num_empty += 1
                    bar.write(f"empty caption: {visible(path)}", file=sys.stderr)
                write_row(file, form, {"image_id": image_id, "caption": caption}, is_first=not num_rows)
                num_rows += 1
            if num_rows == num_empty:
                raise UserError(
                    f"of {len(images)} images {num_unreadable} could not be read and {num_empty} got empty captions; "
                    "expected at least one caption; see the lines above, and check the checkpoint"
                )
    except OSError as error:
        if not out:  # the reader of the pipe is gone
            raise
        raise UserError(
            f"out={out!r} cannot be written ({error.strerror}); expected a folder with room; set out=<another file>"
        ) from error
    counts = {
        "captioned": num_rows - num_empty,
        "could not be read": num_unreadable,
        "empty captions": num_empty,
    }
    print("; ".join(f"{count} {name}" for name, count in counts.items() if count), file=sys.stderr)
    return 2 if num_unreadable or num_empty else 0


def main(arguments: Sequence[str]) -> int:
    """Caption the images of the arguments and return the exit status; UserErrors name mistakes."""
    settings = parse_command(arguments, DEFAULTS, positional="paths")
    out, form = settings["out"], settings["format"]
    form = form or (Path(out).suffix.lower().removeprefix(".") if out else "csv")
    if form not in ("csv", "jsonl") or (out and Path(out).is_dir()):
        raise UserError(f"format={form!r} out={out!r}; expected a .csv or .jsonl file; set out=captions.csv")
    images = find_images(settings["paths"])
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    from src.captioner import open_from_settings

    return predict(open_from_settings(settings), images, out, form, settings["batch_size"])


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
