"""Look at a folder of captioned images before training: python -m src.data data_dir=FOLDER [out=FILE.png]

data_dir=         folder in any layout of docs/formats.md
out=data.png      picture of 12 images with their captions
checkpoint=       also count the captions that are cut, by the tokenizer of this folder or hub id
max_tokens=0      tokens of a caption; 0: the checkpoint's limit
captions_file= images_dir= image_column= caption_columns=A,B split_column= group_column=
                  as in configs/datamodule/folder.yaml; found when not given
write_df=FILE.json  also write the document frequencies of the training captions, for metrics.cider_df

Prints rows, images, splits, caption lengths, rows that cannot be used by reason, and near-duplicates across the splits.
"""

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.utils.entry import parse_command, run_command

FOLDER = ("captions_file", "images_dir", "image_column", "caption_columns", "split_column", "group_column")
DEFAULTS = {"data_dir": None, "out": "data.png", "checkpoint": "", "max_tokens": 0, "write_df": ""}
DEFAULTS |= dict.fromkeys(FOLDER, "")
PICTURED = 12  # images


def main(arguments: Sequence[str]) -> None:
    """Print what a folder holds and draw a sample of it. UserError where it cannot be read, or no image is left."""
    settings = parse_command([argument.removeprefix("datamodule.") for argument in arguments], DEFAULTS)
    from src.datamodule.folder import FolderDataModule

    logging.basicConfig(format="%(message)s")
    logging.getLogger("src").setLevel(logging.INFO)
    given: dict[str, Any] = {name: settings[name] or None for name in FOLDER}
    given["caption_columns"] = given["caption_columns"] and given["caption_columns"].split(",")
    data = FolderDataModule(settings["data_dir"], max_skipped=1.0, **given)
    data.setup()
    for name, text in describe(data, settings["checkpoint"], settings["max_tokens"]):
        print(f"{name:<16}{text}")
    if settings["write_df"]:
        write_frequencies(data.splits["train"], Path(settings["write_df"]))
    images = [image for images in data.splits.values() for image in images]
    draw_contact_sheet(images[:: max(len(images) // PICTURED, 1)][:PICTURED], Path(settings["out"]))
    print(f"{'picture':<16}{Path(settings['out']).absolute()}")


def describe(data: Any, checkpoint: str = "", max_tokens: int = 0) -> Iterator[tuple[str, str]]:
    """Yield label and text of each line about a data module that is set up."""
    table = data.table
    captions = [caption for image in table.images for caption in image.captions]
    yield "rows", f"{table.rows_read:,}; {len(table.skipped):,} skipped"
    for reason, count in Counter(row.reason for row in table.skipped).most_common():
        first = next(row for row in table.skipped if row.reason == reason)
        yield "", f"{count:,} {reason}; the first: {first}"
    for reason, count in table.excluded.items():
        yield "", f"{count:,} {reason}"
    yield "images", f"{len(table.images):,}"
    yield "captions", f"{len(captions):,}, {len(captions) / len(table.images):.1f} per image"
    yield "caption words", _quantiles([len(caption.split()) for caption in captions])
    if checkpoint:
        from src.datamodule.caption_dataset import tokenize_captions
        from src.datamodule.processor import load_processor

        processor = load_processor(checkpoint)
        limit = processor.token_limit(max_tokens or None)
        tokens, _ = tokenize_captions(table.images, processor, sys.maxsize)
        lengths = [len(ids) for of_image in tokens for ids in of_image]
        num_cut = sum(length > limit for length in lengths)
        yield "caption tokens", f"{_quantiles(lengths)}; {num_cut / len(lengths):.1%} are cut at {limit}"
    official = any(image.split for image in table.images)
    sizes = ", ".join(f"{name} {len(images):,}" for name, images in data.splits.items())
    yield "splits", f"{sizes} images ({'the official split' if official else 'see datamodule.split_ratios'})"
    duplicates = data.duplicates.items()
    first_pair = "".join(f"; such as {one!r} and {other!r}" for one, other in list(duplicates)[:1])
    yield "near-duplicates", f"{len(duplicates):,} images of val and test look like one of another split{first_pair}"


def _quantiles(lengths: Sequence[int]) -> str:
    ordered = sorted(lengths)
    return f"median {ordered[len(ordered) // 2]}, 95% up to {ordered[int(0.95 * len(ordered))]}, longest {ordered[-1]}"


def write_frequencies(images: Sequence[Any], path: Path) -> None:
    """Write in how many of the images each n-gram of tokenized captions occurs, as `metrics.cider_df` reads it."""
    from src.metrics.cider import count_documents, frequencies_as_json
    from src.metrics.ptb_tokenizer import ptb_tokenize
    from src.utils.files import write_json

    lines = iter(ptb_tokenize([text for image in images for text in image.captions]))
    write_json(path, frequencies_as_json(count_documents([[next(lines) for _ in image.captions] for image in images])))


def draw_contact_sheet(images: Sequence[Any], out: Path) -> None:
    """Draw the images that can be read, each with its first caption, into a PNG."""
    from src.report.figures import draw_captions, save_png
    from src.report.run_files import Prediction

    rows = [Prediction(one.image_id, one.path, "", None, one.captions[:1], "", one.box, {}, one.span) for one in images]
    figure = draw_captions([row for row in rows if row.pixels() is not None])
    for axes in figure.axes:
        axes.set_anchor("N")  # all room is below, for long captions
    save_png(figure, out)


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
