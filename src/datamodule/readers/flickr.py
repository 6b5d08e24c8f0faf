"""Read Flickr8k and Flickr30k: a captions file in any of its formats and a folder of images become a CaptionTable."""

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow
from src.datamodule.readers.encodings import clean_caption, printable
from src.datamodule.readers.image_folder import ImageFolder, ImageNotFound, find_first, find_path
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


def read_flickr(
    data_dir: str | Path,
    captions_file: str | Path | None = None,
    images_dir: str | Path | None = None,
    karpathy_json: str | Path | None = None,
    official_split: bool = True,
) -> CaptionTable:
    """Read a Flickr folder: images in the order of the captions file; they are not opened.

    The arguments are the keys of configs/datamodule/flickr.yaml. Images that the official split does not name are in
    `excluded`. UserError where a folder or file is missing, or the captions file has an unknown format.
    """
    root = find_path("data_dir", data_dir, is_dir=True)
    json_file = find_first("karpathy_json", karpathy_json, root, KARPATHY_FILES)
    file = find_first("captions_file", captions_file, root, CAPTIONS_FILES) or json_file
    file = file or min(root.glob("**/captions_*.json"), default=None)  # COCO's: read_records says what it is
    if file is None:
        found = ", ".join(sorted(path.name for path in root.glob("*"))[:8]) or "nothing"
        raise UserError(
            f"datamodule.data_dir={str(data_dir)!r} has no captions file (it holds {found}); expected "
            "captions.txt (or results.csv, Flickr8k.token.txt) and Images/; set datamodule.captions_file=..."
        )
    records, folder = read_records(file), ImageFolder(root, images_dir, IMAGE_FOLDERS)
    captions: dict[tuple[str, str, str], dict[str, None]] = {}  # (id, path, group) -> captions in order
    skipped: list[SkippedRow] = []
    for line, name, text, error, _ in records:
        caption, image, detail = clean_caption(text), ("", "", ""), text
        if not error:
            try:
                image = folder.find(name)
                error = "duplicate pair" if caption in captions.get(image, ()) else ""
                error = error if caption else "empty caption"
            except ImageNotFound as cause:
                error, detail = cause.reason, cause.detail
        if error:
            skipped.append(SkippedRow(line, printable(name), error, printable(detail)))
        else:
            captions.setdefault(image, {})[caption] = None
    images = [CaptionedImage(name, path, tuple(texts), group) for (name, path, group), texts in captions.items()]
    table = CaptionTable(images, skipped, len(records))
    json_file = json_file or (file if file.suffix.lower() == ".json" else None)
    if official_split and json_file is not None:
        split_records = records if json_file == file else read_records(json_file)
        return _with_split(table, split_records, folder, json_file.name)
    return table


def _with_split(table: CaptionTable, records: list[Record], folder: ImageFolder, source: str) -> CaptionTable:
    """Set the official split; images that it does not name are excluded, as in published work."""
    split_of: dict[str, str] = {}
    for record in records:
        if record.split:
            with suppress(ImageNotFound):  # a split may name more images than a copy of the data set has
                split_of[folder.find(record.name)[0]] = record.split
    images = [replace(image, split=split_of.get(image.image_id)) for image in table.images]
    kept = [image for image in images if image.split]
    if images and not kept:
        raise UserError(
            f"{source} names none of the {len(images)} images; expected the json of the same data set; "
            "set datamodule.karpathy_json=... or datamodule.official_split=false"
        )
    log.info("official split of %s: %s", source, dict(Counter(image.split for image in kept)))
    num_excluded = sum(len(image.captions) for image in images if not image.split)
    return replace(table, images=kept, excluded={f"not in {source}": num_excluded} if num_excluded else {})
