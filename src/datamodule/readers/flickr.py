"""Read Flickr8k and Flickr30k: a captions file in any of its formats and a folder of images become a CaptionTable.

Without torch, so that a captions file can be read quickly.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow
from src.datamodule.readers.encodings import clean_caption, printable
from src.datamodule.readers.image_folder import (
    ImageFolder,
    ImageNotFound,
    find_file,
    find_folder,
    find_subfolder,
)
from src.datamodule.readers.tables import Record, read_records
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

CAPTIONS_FILES = (
    "captions.txt",
    "captions.csv",
    "results.csv",
    "flickr30k_images/results.csv",
    "Flickr8k.token.txt",
    "Flickr8k_text/Flickr8k.token.txt",
    "results_20130124.token",
)
KARPATHY_FILES = ("dataset_flickr8k.json", "dataset_flickr30k.json")
IMAGE_FOLDERS = (
    "Images",
    "images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "flickr30k_images/flickr30k_images",
    "flickr30k_images",
    "flickr30k-images",
)
LAYOUT = "a folder with captions.txt (or results.csv, Flickr8k.token.txt) and Images/"


def read_flickr(
    data_dir: str | Path,
    captions_file: str | Path | None = None,
    images_dir: str | Path | None = None,
    karpathy_json: str | Path | None = None,
    official_split: bool = True,
) -> CaptionTable:
    """Read a Flickr folder; images are looked up in one listing and not opened.

    Args:
        data_dir: holds the captions file and the image folder.
        captions_file: inside `data_dir` or absolute; None takes the first of CAPTIONS_FILES that exists, else
            Karpathy's json.
        images_dir: likewise; None takes the first of IMAGE_FOLDERS.
        karpathy_json: Karpathy's json, for its official split; None takes the one in `data_dir`.
        official_split: False ignores the json's split.

    Returns:
        Images in the order of the file. Rows without a usable image or caption, and repeated pairs, are in `skipped`;
        images that the official split does not name are in `excluded`.

    Raises:
        UserError: a folder or file is missing or unreadable, or the captions file has an unknown format.
    """
    root = find_folder("datamodule.data_dir", data_dir, LAYOUT)
    json_file = _find(root, "datamodule.karpathy_json", karpathy_json, KARPATHY_FILES)
    file = _find(root, "datamodule.captions_file", captions_file, CAPTIONS_FILES) or json_file
    file = file or next(
        iter(sorted(root.glob("**/captions_*.json"))), None
    )  # COCO's: read_records says what it is
    if file is None:
        found = ", ".join(sorted(path.name for path in root.glob("*"))[:8]) or "nothing"
        raise UserError(
            f"datamodule.data_dir={str(data_dir)!r} has no captions file (it holds {printable(found)}); "
            f"expected {LAYOUT}; set datamodule.captions_file=..."
        )
    records = read_records(file)
    folder = ImageFolder(find_images(root, images_dir))
    table = _group_by_image(records, folder)
    folder.log_near_matches()
    if not official_split:
        return replace(table, images=[replace(image, split=None) for image in table.images])
    if json_file is not None and json_file != file:
        return _with_split(table, read_records(json_file), folder, json_file.name)
    return table


def find_images(root: Path, given: str | Path | None) -> Path:
    """Return the image folder: the given one, else the first of IMAGE_FOLDERS.

    Raises:
        UserError: there is none.
    """
    return find_subfolder(root, "datamodule.images_dir", given, IMAGE_FOLDERS)


def _find(root: Path, key: str, given: str | Path | None, names: Iterable[str]) -> Path | None:
    """The given file, else the first of `names` in `root`, else None."""
    if given is None:
        return next((root / name for name in names if (root / name).is_file()), None)
    return find_file(key, given, root)


def _group_by_image(records: Iterable[Record], folder: ImageFolder) -> CaptionTable:
    """Group records by image, in the order in which images first appear, and list invalid ones."""
    paths: dict[str, tuple[str, str, str | None]] = {}
    captions: dict[str, dict[str, None]] = {}
    skipped, rows_read = [], 0
    for record in records:
        rows_read += 1
        error, detail, caption = record.error, record.caption, clean_caption(record.caption)
        image_id = path = group = ""
        if not error:
            try:
                image_id, path, group = folder.find(record.name)
            except ImageNotFound as cause:
                error, detail = cause.reason, cause.detail
        if not error and not caption:
            error = "empty caption"
        elif not error and caption in captions.get(image_id, {}):
            error = "duplicate pair"
        if error:
            skipped.append(SkippedRow(record.line, printable(record.name), error, printable(detail)))
            continue
        paths.setdefault(image_id, (path, group, record.split))
        captions.setdefault(image_id, {})[caption] = None
    images = [
        CaptionedImage(image_id, path, tuple(captions[image_id]), group, split=split)
        for image_id, (path, group, split) in paths.items()
    ]
    return CaptionTable(images, skipped, rows_read)


def _with_split(
    table: CaptionTable, records: Iterable[Record], folder: ImageFolder, source: str
) -> CaptionTable:
    """Set the official split; images that it does not name are excluded, as in published work.

    Raises:
        UserError: the split names no image of the table.
    """
    split_of: dict[str, str] = {}
    for record in records:
        if record.split:
            try:
                split_of[folder.find(record.name)[0]] = record.split
            except ImageNotFound:
                continue  # a split may name more images than a copy of the data set has
    images = [replace(image, split=split_of.get(image.image_id)) for image in table.images]
    kept = [image for image in images if image.split]
    if table.images and not kept:
        raise UserError(
            f"{source} names none of the {len(table.images)} images; expected the json of the same data set; "
            "set datamodule.karpathy_json=... or datamodule.official_split=false"
        )
    counts = Counter(image.split for image in kept)
    log.info(
        "official split of %s: %d train, %d val, %d test",
        source,
        *(counts[s] for s in ("train", "val", "test")),
    )
    excluded = sum(len(image.captions) for image in images if not image.split)
    reasons = {f"not in {source}": excluded} if excluded else {}
    return replace(table, images=kept, excluded={**table.excluded, **reasons})
