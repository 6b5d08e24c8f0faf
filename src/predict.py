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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from src.utils.entry import parse_command, run_command
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import visible

if TYPE_CHECKING:
    from src.captioner import Captioner

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
FORMATS = ("csv", "jsonl")
SOME_FAILED = 2
DEFAULTS = {
    "checkpoint": None, "log_dir": "", "out": "", "format": "", "batch_size": 16, "num_beams": 0,
    "max_length": 0, "device": "auto", "precision": "auto", "base": "",
}  # fmt: skip

Write = Callable[[str, str], object]


def find_images(paths: Sequence[str]) -> tuple[dict[str, str], int]:
    """Find the image files of files, folders and patterns: {path: image_id}, and how many other files were met.

    paths: files of any name; folders, searched with their subfolders, links included, for image suffixes,
    hidden names excluded; patterns with `*`, `?`, `[...]` or `**`. Each file counts once, sorted by name.

    Raises:
        UserError: a path that names nothing, or no image was found.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    others = 0
    for path in paths:
        is_folder = os.path.isdir(path)
        for file in _walk(path) if is_folder else _matches(path):
            if is_folder and not file.lower().endswith(SUFFIXES):
                others += 1
            elif (absolute := os.path.abspath(file)) not in seen:  # two links to one file are two images
                seen.add(absolute)
                is_only = is_folder and len(paths) == 1
                found[file] = Path(file).relative_to(path).as_posix() if is_only else file
    if not found:
        raise UserError(
            f"{' '.join(paths) or 'no PATH'}: no image there; expected image files, folders or patterns; name one"
        )
    return found, others


def _walk(folder: str) -> Iterator[str]:
    """Yield the files below a folder, a folder's own before its subfolders'; each real folder once."""
    visited = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        visited.add(os.path.realpath(root))
        folders[:] = sorted(
            name for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(root, name)) not in visited
        )  # fmt: skip
        yield from (os.path.join(root, name) for name in sorted(files) if not name.startswith("."))


def _matches(path: str) -> list[str]:
    """Return the file, or the files that a pattern matches.

    Raises:
        UserError: there is none.
    """
    if os.path.lexists(path):
        return [path]
    matched = sorted(file for file in glob.glob(path, recursive=True) if not os.path.isdir(file))
    if not matched:
        what = "matches no file" if glob.has_magic(path) else "does not exist"
        raise UserError(f"{path!r} {what}; expected an image, a folder or a pattern; correct the path")
    return matched


def predict(
    captioner: "Captioner", images: dict[str, str], write: Write, batch_size: int = 16
) -> tuple[int, int]:
    """Pass image_id and caption of each image ({path: image_id}) to `write`, in order, under a progress bar.

    Returns how many could not be read and how many captions are empty; each is logged on standard error.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn()]
    num_unreadable = num_empty = 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(images), speed="")
        found = captioner.stream(images, batch_size)
        for (path, image_id), caption in zip(images.items(), found, strict=True):
            if not isinstance(caption, str):
                num_unreadable += 1
                progress.console.print(f"skipped: {caption}")
            else:
                if not caption.strip():
                    num_empty += 1
                    progress.console.print(f"empty caption: {visible(path)}")
                write(image_id, caption)
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, speed=f"{speed:.1f} images/s" if speed else "")
    return num_unreadable, num_empty


@contextmanager
def open_table(out: str, form: str) -> Iterator[Write]:
    """Yield a function that writes a row of image_id and caption to `out`, "" for standard output.

    A file appears when the block ends without an error; standard output gets its header with the first row.

    Raises:
        UserError: the file cannot be written.
    """
    if not out:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", newline="")
        yield _row_writer(sys.stdout, form)
        return
    try:
        with atomic_write(out) as file:
            yield _row_writer(file, form)
    except OSError as error:
        raise UserError(
            f"out={out!r} cannot be written ({error.strerror}); expected a folder with room; set out=<another file>"
        ) from error


def _row_writer(file: IO[str], form: str) -> Write:
    """Return a function that writes rows; on a terminal, captions too are escaped."""
    shown = visible if file.isatty() else str
    table = csv.writer(file, lineterminator="\n")
    header = [["image_id", "caption"]]

    def write(image_id: str, caption: str) -> None:
        image_id, caption = visible(image_id), shown(caption)
        if form == "jsonl":
            file.write(json.dumps({"image_id": image_id, "caption": caption}, ensure_ascii=False) + "\n")
        else:
            table.writerows([*header, [image_id, caption]])
            header.clear()

    return write


def choose_format(form: str, out: str) -> str:
    """Return csv or jsonl, as set or by the name of the file.

    Raises:
        UserError: it is neither, or `out` is a folder.
    """
    chosen = form or (Path(out).suffix.lower().removeprefix(".") if out else "csv")
    if chosen not in FORMATS:
        raise UserError(
            f"format={form!r} out={out!r}; expected a name that ends in .csv or .jsonl; set out=captions.csv"
        )
    if out and Path(out).is_dir():
        raise UserError(f"out={out!r} is a folder; expected a file; set out={Path(out) / 'captions.csv'}")
    return chosen


def main(arguments: Sequence[str]) -> int:
    """Caption the images of the arguments and return the exit status.

    Raises:
        UserError: an unknown argument, a path that names nothing, no captioner, or no image was captioned.
    """
    settings = parse_command(arguments, DEFAULTS, positional="paths")
    form = choose_format(settings["format"], settings["out"])
    images, num_others = find_images(settings["paths"])
    from src.captioner import open_from_settings

    captioner = open_from_settings(settings)
    with open_table(settings["out"], form) as write:
        num_unreadable, num_empty = predict(captioner, images, write, settings["batch_size"])
        num_captioned = len(images) - num_unreadable - num_empty
        if not num_captioned:
            reason = "captions are empty" if num_empty else "images could be read"
            raise UserError(
                f"{'all' if num_empty else 'none of'} {len(images)} {reason}; expected at least one caption; "
                "see the lines above, and check the checkpoint"
            )
    counts = {"captioned": num_captioned, "could not be read": num_unreadable, "empty captions": num_empty,
              "other files in the folders": num_others}  # fmt: skip
    line = "; ".join(f"{count} {name}" for name, count in counts.items() if count)
    print(line + (f"; {settings['out']}" if settings["out"] else ""), file=sys.stderr)
    return SOME_FAILED if num_unreadable or num_empty else 0


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
