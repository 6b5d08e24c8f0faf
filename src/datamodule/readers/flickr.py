"""Step 1 for Flickr8k and Flickr30k: a captions file in any of its layouts becomes a `CaptionTable`.

Apart from `flickr.py`, so that a captions file can be read without loading torch.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow
from src.datamodule.readers.encodings import clean_caption, printable
from src.datamodule.readers.image_folder import PictureFolder, PictureRefused, find_file, find_folder
from src.datamodule.readers.layouts import RawRow, read_rows
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
    """Read a Flickr folder; pictures are looked for in one listing and not opened.

    Args:
        data_dir: holds the captions file and the folder of pictures.
        captions_file: inside `data_dir` or absolute; None takes the first of CAPTIONS_FILES that is there,
            else Karpathy's json.
        images_dir: likewise; None takes the first of IMAGE_FOLDERS.
        karpathy_json: Karpathy's json, for its official split; None takes the one that lies in `data_dir`.
        official_split: False keeps the json's split out.

    Returns:
        Images in the order of the file. Rows with no usable picture or caption, and pairs that occurred
        before, are in `skipped`; rows of images that the official split does not name are in `excluded`.

    Raises:
        UserError: a folder or file is missing or unreadable, or the captions file has an unknown layout.
    """
    root = find_folder("datamodule.data_dir", data_dir, LAYOUT)
    json_file = _find(root, "datamodule.karpathy_json", karpathy_json, KARPATHY_FILES)
    file = _find(root, "datamodule.captions_file", captions_file, CAPTIONS_FILES) or json_file
    if file is None:
        found = ", ".join(sorted(path.name for path in root.glob("*"))[:8]) or "nothing"
        raise UserError(
            f"datamodule.data_dir={str(data_dir)!r} has no captions file (it holds {printable(found)}); "
            f"expected {LAYOUT}; set datamodule.captions_file=..."
        )
    folder = PictureFolder(find_images(root, images_dir))
    table = _fill(read_rows(file), folder)
    if not official_split:
        return replace(table, images=[replace(image, split=None) for image in table.images])
    if json_file is not None and json_file != file:
        return _with_split(table, _official_split(read_rows(json_file)), json_file.name)
    return table


def _find(root: Path, key: str, given: str | Path | None, names: Iterable[str]) -> Path | None:
    """The file that was asked for, else the first of `names` that lies in `root`, else None.

    Raises:
        UserError: the file that was asked for does not exist.
    """
    if given is None:
        return next((root / name for name in names if (root / name).is_file()), None)
    return find_file(key, given, root)


def find_images(root: Path, given: str | Path | None) -> Path:
    """The folder of pictures.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        return find_folder("datamodule.images_dir", root / Path(given).expanduser(), "the folder of pictures")
    for name in IMAGE_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise UserError(
        f"datamodule.data_dir={str(root)!r} has no folder of pictures; expected Images/ or images/ in it; "
        "set datamodule.images_dir=..."
    )


def _fill(rows: Iterable[RawRow], folder: PictureFolder) -> CaptionTable:
    """Group rows by image, in the order in which images first appear, and put faulty rows aside."""
    paths: dict[str, tuple[str, str, str | None]] = {}
    captions: dict[str, dict[str, None]] = {}
    skipped, rows_read = [], 0
    for row in rows:
        rows_read += 1
        fault, detail, caption = row.fault, row.caption, clean_caption(row.caption)
        if not fault:
            try:
                image_id, path, group = folder.find(row.name)
            except PictureRefused as refused:
                fault, detail = refused.reason, refused.detail
            else:
                known = captions.get(image_id, {})
                fault = (
                    ""
                    if caption and caption not in known
                    else "duplicate pair"
                    if caption
                    else "empty caption"
                )
        if fault:
            skipped.append(SkippedRow(row.line, printable(row.name), fault, printable(detail)))
            continue
        paths.setdefault(image_id, (path, group, row.split))
        captions.setdefault(image_id, {})[caption] = None
    images = [
        CaptionedImage(image_id, path, tuple(captions[image_id]), group, split=split)
        for image_id, (path, group, split) in paths.items()
    ]
    return CaptionTable(images, skipped, rows_read)


def _official_split(rows: Iterable[RawRow]) -> dict[str, str]:
    return {row.name: row.split for row in rows if row.split}


def _with_split(table: CaptionTable, split_of: Mapping[str, str], source: str) -> CaptionTable:
    """The table with the official split; images that it does not name are left out, as in published work.

    Raises:
        UserError: the split names no image of the table.
    """
    images = [replace(image, split=split_of.get(image.image_id)) for image in table.images]
    kept = [image for image in images if image.split]
    if table.images and not kept:
        raise UserError(
            f"{source} names none of the {len(table.images)} images; expected the json of the same data set; "
            "set datamodule.karpathy_json=... or datamodule.official_split=false"
        )
    counts = Counter(image.split for image in kept)
    log.info(
        "official split of %s: %s", source, ", ".join(f"{counts[p]} {p}" for p in ("train", "val", "test"))
    )
    excluded = sum(len(image.captions) for image in images if not image.split)
    reasons = {f"not in {source}": excluded} if excluded else {}
    return replace(table, images=kept, excluded={**table.excluded, **reasons})
