"""Caption pictures: python -m src.predict PATH... checkpoint=<run, .ckpt, saved folder or hub id> [out=FILE]

PATH            a picture, a folder (searched through with its subfolders) or a pattern in quotes
checkpoint=     a run folder (its best), a .ckpt, `last`, a saved folder or a hub id
out=            a .csv or .jsonl file, whole or not there; standard output when not given
format=         csv or jsonl; by the name of `out` when not given, else csv
batch_size=16   pictures that are captioned at once
num_beams=0     beams of the search, 1 is greedy; 0: as the checkpoint was evaluated
max_length=0    tokens of a caption, start token included; 0: as the checkpoint was evaluated
device=auto     auto, cpu, cuda, mps
precision=auto  auto (bf16 where the hardware has it), bf16, 32
base=           where the base weights are now, when they were moved since training

One row per picture: image_id (the path below the folder, when PATH is one folder; else the path) and caption.
Characters in file names that a terminal would obey are spelled out, and in csv text that a spreadsheet would run
as a formula has an apostrophe before it. Pictures that cannot be read are named on standard error and left out.

Exit status: 0 every picture was captioned; 1 none was, or a mistake in the command; 2 some could not be read;
130 stopped.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from src.utils.command import parse_command, run_command
from src.utils.csv_cells import safe_cell
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import visible
from src.utils.run_folder import checkpoint_file

if TYPE_CHECKING:
    from src.captioner import Captioner
    from src.datamodule.readers.paths import PicturePath

FORMATS = ("csv", "jsonl")
SOME_UNREADABLE = 2
DEFAULTS = {
    "checkpoint": None, "out": "", "format": "", "batch_size": 16, "num_beams": 0, "max_length": 0,
    "device": "auto", "precision": "auto", "base": "",
}  # fmt: skip

Write = Callable[[str, str], object]


def predict(
    captioner: "Captioner", pictures: Sequence["PicturePath"], write: Write, batch_size: int = 16
) -> dict[str, str]:
    """Hand image_id and caption of every picture to `write`, in order, under a progress bar on standard error.

    Returns: path -> reason, of the pictures that could not be read; each is told when it is met.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn()]
    unreadable: dict[str, str] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(pictures), speed="")
        found = captioner.stream((picture.path for picture in pictures), batch_size)
        for picture, caption in zip(pictures, found, strict=True):
            if isinstance(caption, str):
                write(picture.image_id, caption)
            else:
                unreadable[picture.path] = str(caption)
                progress.console.print(f"left out: {caption}")
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, speed=f"{speed:.1f} pictures/s" if speed else "")
    return unreadable


@contextmanager
def open_table(out: str, form: str) -> Iterator[Write]:
    """A function that writes a row of image_id and caption to the file, or to standard output where out is "".

    The file appears when the block ends without an error.

    Raises:
        UserError: the file cannot be written.
    """
    if not out:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", newline="")
        yield _writer(sys.stdout, form)
        sys.stdout.flush()
        return
    try:
        with atomic_write(out) as file:
            yield _writer(file, form)
    except OSError as error:
        raise UserError(
            f"out={out!r} cannot be written ({error.strerror}); expected a place with room; set out=<another file>"
        ) from error


def _writer(file: IO[str], form: str) -> Write:
    """Writes rows; a model may say what moves a cursor, which is spelled out where a terminal would obey."""
    told = visible if file.isatty() else str
    if form == "jsonl":
        return lambda image_id, caption: file.write(
            json.dumps({"image_id": visible(image_id), "caption": told(caption)}, ensure_ascii=False) + "\n"
        )
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["image_id", "caption"])
    return lambda image_id, caption: rows.writerow([safe_cell(visible(image_id)), safe_cell(told(caption))])


def choose_format(form: str, out: str) -> str:
    """The format as set, else by the name of the file.

    Raises:
        UserError: it is neither csv nor jsonl, or `out` is a folder.
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
    """Read paths and `key=value` arguments, caption, and tell the count; the exit status.

    Raises:
        UserError: an argument that is not known, a path that names nothing, no captioner, or no picture could
            be read.
    """
    if any(word in ("-h", "--help") for word in arguments):
        print(__doc__)
        return 0
    paths = [word for word in arguments if "=" not in word or os.path.exists(word)]
    settings = parse_command([word for word in arguments if word not in paths], DEFAULTS)
    form = choose_format(settings["format"], settings["out"])
    checkpoint_file(settings["checkpoint"])  # before what takes seconds to import
    from src.datamodule.readers.paths import find_pictures

    pictures, others = find_pictures(paths)
    captioner = _captioner(settings)
    with open_table(settings["out"], form) as write:
        unreadable = predict(captioner, pictures, write, settings["batch_size"])
        if len(unreadable) == len(pictures):
            raise UserError(
                f"none of {len(pictures)} pictures could be read; expected at least one; see the reasons above"
            )
    done = len(pictures) - len(unreadable)
    notes = [f"{done} captioned"] + [f"{len(unreadable)} could not be read"] * bool(unreadable)
    notes += [f"{others} other files in the folders"] * bool(others)
    print("; ".join(notes) + (f"; {settings['out']}" if settings["out"] else ""), file=sys.stderr)
    return SOME_UNREADABLE if unreadable else 0


def _captioner(settings: dict[str, Any]) -> "Captioner":
    from src.captioner import Captioner
    from src.utils.hardware import tune_malloc

    captioner = Captioner.from_checkpoint(
        settings["checkpoint"],
        base=settings["base"] or None,
        max_length=settings["max_length"] or None,
        num_beams=settings["num_beams"] or None,
        device=settings["device"],
        precision=settings["precision"],
    )
    tune_malloc()
    return captioner


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
