"""Caption images: python -m src.predict PATH... [checkpoint=<run, .ckpt, saved folder or hub id>] [out=FILE]

PATH            an image, a folder (searched with its subfolders), a pattern in quotes, a .tar shard or a .parquet file
checkpoint=     a run folder (its best), a .ckpt, a saved folder or a hub id; the newest finished run when not given
log_dir=        where that run is looked for; the project's logs/ when not given
out=            a file, written whole or not at all; csv on standard output when not given
format=         csv, jsonl, imageclef (ID,Caption, all quoted) or txt (a .txt beside each image that has none); by `out`
num_captions=1  further captions of an image, of its other beams or samples, in columns of their own
batch_size=16   images captioned at once
num_beams=      beams of the search, 1 is greedy; max_length=, min_length=, length_penalty=, no_repeat_ngram_size=,
                repetition_penalty=; to draw captions do_sample=true, temperature=, top_p=, seed=: as `model.generation`
                in configs/model/vit_gpt2.yaml; when not given, as the checkpoint was evaluated
device=auto     auto, cpu, cuda, mps
precision=auto  auto (bf16 where the hardware has it), bf16, 32
base=           where the base weights are now, when they were moved since training

One row per image: image_id (the path below the folder, when PATH is one folder; else the path), caption, and
confidence: the mean log-probability of its tokens in nats, 0 is certain. Links are followed. Control characters in file
names are escaped. Unreadable images are named on standard error and skipped. The same command continues where a stopped
one with `out` ended.

Exit status: 0 every image was captioned; 1 none was, or a mistake in the command; 2 some could not be read or
got an empty caption; 130 stopped.
"""

import csv
import glob
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Any

from tqdm import tqdm

from src.datamodule.caption_table import CaptionedImage, with_unique_ids
from src.datamodule.readers.files import IMAGE_SUFFIXES
from src.utils.config_check import GENERATION
from src.utils.entry import heavy_imports, parse_command, run_short_command
from src.utils.errors import UserError
from src.utils.files import atomic_write, write_text
from src.utils.logging import visible

Caption = Callable[[Sequence[CaptionedImage]], Iterator[tuple[CaptionedImage, dict[str, Any]]]]
FORMATS = ("csv", "jsonl", "imageclef", "txt")
DEFAULTS = {
    "checkpoint": "last", "log_dir": "", "out": "", "format": "", "num_captions": 1, "batch_size": 16,
    **GENERATION, "device": "auto", "precision": "auto", "base": "",
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Caption images into `out`, files beside them, or standard output; return the exit status.

    UserErrors name mistakes in the command, a file that cannot be written, and that no image was captioned.
    """
    settings = parse_command(arguments, DEFAULTS, positional="paths")
    partial_name = hashlib.blake2b(repr(sorted(settings.items())).encode(), digest_size=6).hexdigest()
    names = ("paths", "batch_size", "num_captions", "out", "format")
    paths, batch_size, count, out, form = (settings.pop(name) for name in names)
    form = form or Path(out).suffix.removeprefix(".") or "csv"
    images = find_images(paths)
    _check_output(images, out, form, count)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    with heavy_imports():
        from src.captioner import Captioner
        from src.models.kernels.linear import tune_malloc

    tune_malloc()
    captioner = Captioner.from_checkpoint(**settings)
    generation = captioner.generation
    generation["num_beams"] = count if generation.get("do_sample") else max(generation["num_beams"], count)
    problems = {"could not be read": 0, "empty captions": 0}
    caption = partial(_caption, captioner, count=count, batch_size=batch_size, problems=problems)
    if out:
        kept = Path(out).with_name(f".{Path(out).name}.{partial_name}.partial")
        try:
            _write_file(caption, images, Path(out), kept, form)
        except OSError as error:
            reason = f"out={out!r} cannot be written ({error.strerror})"
            raise UserError(f"{reason}; expected a folder with room; set out=<another file>") from error
    else:
        _write_each(caption, images, form)
    captioned = len(images) - sum(problems.values())
    if not captioned:
        found = " and ".join(f"{number} {name}" for name, number in problems.items())
        raise UserError(f"of {len(images)} images {found}; expected at least one caption; see the lines above")
    counts = {"captioned": captioned, **problems}
    print("; ".join(f"{number} {name}" for name, number in counts.items() if number), file=sys.stderr)
    return 2 if any(problems.values()) else 0


def _check_output(images: Sequence[CaptionedImage], out: str, form: str, count: int) -> None:
    """Raise UserError where no such file can be written of these images."""
    if form not in FORMATS or os.path.isdir(out) or (out and form == "txt") or count < 1:
        raise UserError(
            f"out={out!r} format={form!r} num_captions={count}; expected a .csv or .jsonl file, format=imageclef, or "
            "format=txt without out, and 1 or more captions; set out=captions.csv"
        )
    stems = {Path(image.path).with_suffix("") for image in images}
    if form == "txt" and (len(stems) < len(images) or any(image.span for image in images)):
        raise UserError(
            "format=txt: images in a tar or parquet file, or two that differ in their suffix alone, have no text file "
            "of their own; expected image files; set out=captions.csv"
        )


def _caption(
    captioner: Any, images: Sequence[CaptionedImage], count: int, batch_size: int, problems: dict[str, int]
) -> Iterator[tuple[CaptionedImage, dict[str, Any]]]:
    """Yield each image that can be read with its row; name and count the others."""
    bar = tqdm(images, unit=" images", leave=False, disable=None)  # only on a terminal
    for image, found in zip(bar, captioner.stream(images, batch_size, nbest=True), strict=True):
        if not isinstance(found, list):
            problems["could not be read"] += 1
            bar.write(f"skipped: {found}", file=sys.stderr)
            continue
        if not found[0].caption.strip():
            problems["empty captions"] += 1
            bar.write(f"empty caption: {visible(image.image_id)}", file=sys.stderr)
        row: dict[str, Any] = {"image_id": visible(image.image_id)}
        for number in range(count):
            end, best = f"_{number + 1}" if number else "", found[number] if number < len(found) else None
            row |= {f"caption{end}": best.caption if best else "", f"confidence{end}": best and round(best.score, 4)}
        yield image, row


def _write_each(caption: Caption, images: Sequence[CaptionedImage], form: str) -> None:
    """Write each row when it is there, to standard output, or its caption beside an image without a text file."""
    beside = {image: Path(image.path).with_suffix(".txt") for image in images if form == "txt"}
    new = [image for image in images if not (form == "txt" and beside[image].exists())]
    for number, (image, row) in enumerate(caption(new)):
        if form == "txt":
            write_text(beside[image], row["caption"] + "\n")
        else:
            write_row(sys.stdout, row, form, is_first=not number)


def _write_file(caption: Caption, images: Sequence[CaptionedImage], out: Path, kept: Path, form: str) -> None:
    """Write the rows of all images, those of a stopped command included, which are kept in a file of their own."""
    rows: dict[str, dict[str, Any]] = {}
    with suppress(FileNotFoundError):
        for line in kept.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # a line that a kill cut off
                row = json.loads(line)
                rows[row["image_id"]] = row
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(kept, "a", encoding="utf-8", newline="") as file:
        file.write("\n" if rows else "")
        for _, row in caption([one for one in images if visible(one.image_id) not in rows]):
            rows[row["image_id"]] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
    ordered = [rows[name] for image in images if (name := visible(image.image_id)) in rows]
    if any(row["caption"].strip() for row in ordered):
        with atomic_write(out) as file:
            for number, row in enumerate(ordered):
                write_row(file, row, form, is_first=not number)
    kept.unlink()


def find_images(paths: Sequence[str]) -> list[CaptionedImage]:
    """Find the images of files, folders, patterns, tar shards and parquet files; their captions are empty.

    paths: files of any name; folders, searched with subfolders and links for image suffixes, hidden names excluded;
    patterns with `*`, `?`, `[...]` or `**`. Each file counts once. UserError: a path names nothing, or no image.
    """
    found: dict[tuple[str, Any], CaptionedImage] = {}
    for path in paths:
        is_folder = os.path.isdir(path)
        for file in _walk(path) if is_folder else _matches(path):
            image_id, absolute = file, os.path.abspath(file)
            if is_folder and len(paths) == 1:
                image_id = Path(file).relative_to(path).as_posix()
            has_members = PurePath(file).suffix in (".tar", ".parquet")
            for name, span in _members(Path(file)) if has_members else [(image_id, None)]:
                # Two links to one file are two images.
                found.setdefault((absolute, span), CaptionedImage(name, absolute, (), name, span=span))
    if not found:
        expected = "expected image files (DICOM has to be converted to PNG), folders or patterns"
        raise UserError(f"PATH={' '.join(paths)} holds no image; {expected}; name one")
    return with_unique_ids([*found.values()])


def _members(path: Path) -> list[tuple[str, Any]]:
    """Return name and span of the images in a tar or parquet file."""
    from src.datamodule.readers.records import Embedded, read_parquet, read_tar

    records = read_tar(path) if path.suffix == ".tar" else read_parquet(path)
    cells = [cell for record in records for cell in record.fields.values() if isinstance(cell, Embedded)]
    return [(cell.name, cell.span) for cell in cells]


def _walk(folder: str) -> Iterator[str]:
    """Yield the image files below a folder, a folder's own before its subfolders'; each real folder once."""
    visited = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        visited.add(os.path.realpath(root))
        shown = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in shown if os.path.realpath(os.path.join(root, name)) not in visited]
        images = (name for name in sorted(files) if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))
        yield from (os.path.join(root, name) for name in images)


def _matches(path: str) -> list[str]:
    if os.path.lexists(path):
        return [path]
    matched = sorted(file for file in glob.glob(path, recursive=True) if not os.path.isdir(file))
    if not matched:
        what = "matches no file" if glob.has_magic(path) else "does not exist"
        raise UserError(f"{path!r} {what}; expected an image, a folder or a pattern; correct the path")
    return matched


def write_row(file: IO[str], row: Mapping[str, Any], form: str, is_first: bool) -> None:
    """Write a row in one of FORMATS, the first of a csv with a header; on a terminal, captions too are escaped."""
    if file.isatty():
        row = {name: visible(value) if isinstance(value, str) else value for name, value in row.items()}
    if form == "jsonl":
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    writer = csv.writer(file, lineterminator="\n")
    if form == "imageclef":
        row = {"ID": PurePath(row["image_id"]).stem, "Caption": row["caption"]}
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([*([row.keys()] if is_first else []), row.values()])


if __name__ == "__main__":
    run_short_command(main, sys.argv[1:], __doc__)
