"""Read any folder of captioned images: find its captions files, read their rows, look up the images."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow, with_unique_ids
from src.datamodule.readers.columns import SPLITS, Columns, choose_columns, read_texts
from src.datamodule.readers.encodings import clean_caption, printable, read_lines
from src.datamodule.readers.image_folder import IMAGE_SUFFIXES, ImageFolder, ImageNotFound, find_first, find_path
from src.datamodule.readers.json_files import read_json
from src.datamodule.readers.medicat import read_medicat
from src.datamodule.readers.shards import Sample, read_samples
from src.datamodule.readers.tables import Embedded, read_delimited, read_parquet
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

KARPATHY_FILES = ("dataset_flickr8k.json", "dataset_flickr30k.json")
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
# The captions files are those of the first pattern that gives rows; files of a later one are something else.
CAPTIONS_FILES = (
    r"captions\.txt|captions\.csv",
    r"results\.csv|Flickr8k\.token\.txt|results_\d+\.token",
    r"metadata\.(csv|jsonl|parquet)",
    r".*\.parquet",
    r"captions_.*\.json|dataset_flickr.*\.json",
    r"(?!(dataset|package).*info|state|.*_stats)[^.].*\.(csv|tsv|jsonl|ndjson|json)",
    r".*\.tar",
    r"(?!readme|licen[sc]e|classes|requirements|flickr_8k\.)[^.].*\.txt",
)
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
DEPTH = 3  # subfolders in which captions files are looked for


class Row(NamedTuple):
    """One caption and the name of its image, unchecked; of an image in a parquet or tar file, also where it stands."""

    line: int
    name: str
    caption: Any
    error: str = ""
    split: str = ""
    group: str = ""
    base: str = ""  # folder of the captions file within data_dir, "" or "sub/"
    path: str = ""
    span: tuple[Any, int] | None = None


def read_folder(
    data_dir: str | Path,
    captions_file: str | Path | None = None,
    images_dir: str | Path | None = None,
    image_column: str | None = None,
    caption_columns: str | Sequence[str] | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    karpathy_json: str | Path | None = None,
    official_split: bool = True,
) -> CaptionTable:
    """Read a folder of captioned images in any usual layout, in the order of its captions files; images are not opened.

    The arguments are the keys of configs/datamodule/folder.yaml, docs/formats.md lists the layouts. Images that an
    official split does not name are in `excluded`. UserError where a file or column is missing or of unknown format.
    """
    root = find_path("data_dir", data_dir, is_dir=True)
    folder = ImageFolder(root, images_dir)
    captions = [caption_columns] if isinstance(caption_columns, str) else list(caption_columns or ())
    given = Columns(image_column or "", captions, split_column, group_column)
    split_file = find_first("karpathy_json", karpathy_json, root, KARPATHY_FILES)
    rows: list[Row] = []
    problem: UserError | None = None
    for files in _find_captions_files(root, captions_file):
        for path in files:
            if path.suffix == ".jsonl" and any("pdf_hash" in line for line in islice(read_lines(path), 1)):
                return read_medicat(root, path, images_dir)
            try:
                rows += _read_rows(path, folder, given)
            except UserError as error:
                if captions_file or path.suffix in (".parquet", ".tar"):
                    raise
                problem = problem or error
                log.warning("no captions are read from %s: %s", path.name, error)
        if rows:
            break
    rows = rows or list(_sidecar_rows(folder))
    if problem and not rows:
        raise problem
    if not rows:
        found = ", ".join(sorted(path.name for path in root.glob("*"))[:8]) or "nothing"
        raise UserError(
            f"datamodule.data_dir={str(data_dir)!r} has no captions file (it holds {printable(found)}); expected a "
            "table of image names and captions, or a .txt file beside each image; set datamodule.captions_file=..."
        )
    table = _build_table(rows, folder)
    if official_split:
        return _use_official_split(table, folder, split_file)
    return replace(table, images=[replace(image, split=None) for image in table.images])


def _find_captions_files(root: Path, given: str | Path | None) -> list[list[Path]]:
    """The files that are given (a name or pattern), else for each pattern those that match it."""
    if given is not None:
        return [sorted(root.glob(str(given))) if "*" in str(given) else [find_path("captions_file", given, root)]]
    files: list[Path] = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        subfolders[:] = sorted(name for name in subfolders if name[0] not in "._") if depth < DEPTH else []
        # "a.txt" beside "a.jpg" is a caption, "0.parquet" beside "0.tar" or "0/" says how it was downloaded.
        stems = {os.path.splitext(name)[0] for name in names if name.lower().endswith((*IMAGE_SUFFIXES, ".tar"))}
        stems |= {name for name in subfolders if name.isdigit()}
        others = [name for name in sorted(names) if os.path.splitext(name)[0] not in stems or name.endswith(".tar")]
        files += [Path(folder, name) for name in others]
    for path in files:
        if path.name.lower().endswith(COMPRESSED):
            raise UserError(f"{str(path)!r} is a compressed archive; expected .tar files; decompress it (gunzip)")
    return [[path for path in files if re.fullmatch(text, path.name, re.IGNORECASE)] for text in CAPTIONS_FILES]


def _read_rows(path: Path, folder: ImageFolder, given: Columns) -> Iterator[Row]:
    """Yield a row per caption of a captions file; log which columns were chosen."""
    file, relative = str(path.resolve()), Path(os.path.relpath(path, folder.data_dir))
    inside = ".." not in relative.parts
    base = f"{relative.parent.as_posix()}/" if inside and relative.parent.parts else ""
    split = _split_of_path(relative) if inside else ""
    if path.suffix == ".tar":
        for sample in read_samples(path):
            for text in sample.captions():
                yield Row(0, sample.name, text, "" if sample.span else "no image", split, path=file, span=sample.span)
        return

    def is_image(name: str) -> bool:
        return bool(name) and folder.has(name, base)

    suffix = path.suffix.lower()
    read_file = {".parquet": read_parquet, **dict.fromkeys(JSON_SUFFIXES, read_json)}.get(suffix)
    records = read_file(path) if read_file else read_delimited(path, is_image)
    if not records:
        raise UserError(f"{str(path)!r} has no captions; expected a row for each caption; name another captions file")
    columns = choose_columns(path, records, is_image, given)
    captions = ", ".join(map(repr, columns.captions))
    extra = f", split from {columns.split!r}" if columns.split else ""
    log.info("%s: images from column %r, captions from %s%s", path.name, columns.image, captions, extra)
    for line, fields, error in records:
        if error:
            yield Row(line, re.split(r"[\t|;,]", fields[""])[0], fields[""], error)
            continue
        image = fields.get(columns.image)
        name = str(image or "")
        place: tuple[str, Any] = ("", None)
        if isinstance(image, Embedded):
            name, place = image.name or f"{path.name}/{image.row:06}", (file, (image.column, image.row))
        split = SPLITS.get(str(fields.get(columns.split)).strip().lower(), "") if columns.split else split
        group = str(fields.get(columns.group) or "") if columns.group else ""
        for text in read_texts(fields, columns.captions):
            yield Row(line, name, text, "", split, group, base, *place)


def _split_of_path(path: Path) -> str:
    """The split that a folder or file is named after: "validation/metadata.csv", "train-00000-of-00004.parquet"."""
    words = [part.lower() for part in path.parts[:-1]] + re.findall(r"[a-z]+", path.stem.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), "")


def _sidecar_rows(folder: ImageFolder) -> Iterator[Row]:
    """Yield a row per caption of the images that have a .txt, .caption or .json file of their name beside them."""
    files, alone = set(folder), 0
    for name in folder:
        stem, suffix = os.path.splitext(name)
        texts = [end for end in (".txt", ".caption", ".json") if stem + end in files]
        alone += suffix.lower() in IMAGE_SUFFIXES and not texts
        if suffix.lower() in IMAGE_SUFFIXES and texts:
            content = {end: "\n".join(read_lines(Path(folder.root, stem + end))).encode() for end in texts}
            sample = Sample(name, None, content.get(".txt") or content.get(".caption", b""), content.get(".json", b""))
            for text in sample.captions():
                yield Row(0, name, text, split=_split_of_path(Path(name).parent / "_"))
    if 0 < alone < sum(name.lower().endswith(IMAGE_SUFFIXES) for name in files):
        log.info("%d images have no text file beside them and are left out", alone)


def _build_table(rows: Sequence[Row], folder: ImageFolder) -> CaptionTable:
    """Look up the images and clean the captions; list the rows that cannot be used."""
    captions: dict[tuple[str, str, Any], dict[str, None]] = {}  # (name, path, span) of an image -> captions in order
    split_and_group: dict[tuple[str, str, Any], tuple[str, str]] = {}
    skipped: list[SkippedRow] = []
    for row in rows:
        caption = clean_caption(row.caption) if isinstance(row.caption, str) else ""
        key, group, error, detail = (row.name, row.path, row.span), "", row.error, str(row.caption)
        if not error:
            try:
                if not row.path:
                    name, path, group = folder.find(row.name.strip(), row.base)
                    key = (name, path, None)
                error = "duplicate pair" if caption in captions.get(key, ()) else ""
                error = error if caption else "empty caption"
            except ImageNotFound as cause:
                error, detail = cause.reason, cause.detail
        if error:
            skipped.append(SkippedRow(row.line, printable(row.name.strip()), error, printable(detail)))
        else:
            captions.setdefault(key, {})[caption] = None
            split_and_group.setdefault(key, (row.split, row.group or group))
    in_file = Counter((name, path) for name, path, span in captions if span)
    images = []
    shared = os.path.commonprefix([name for name, _, _ in captions])  # noqa: RUF071  characters, cut to a folder:
    shared = shared[: shared.rfind("/") + 1]  # the one that all images are in is no part of their names
    for key, texts in captions.items():
        (name, path, span), (split, group) = key, split_and_group[key]
        if span and in_file[name, path] > 1 and len(in_file) > 1 and not group:  # a row per caption of an image
            group = name
        name, group = name.removeprefix(shared), group.removeprefix(shared)
        images.append(CaptionedImage(name, path, tuple(texts), group, split=split or None, span=span))
    images = with_unique_ids(images, folder.data_dir)
    images = [image if image.group else replace(image, group=image.image_id) for image in images]
    return CaptionTable(images, skipped, len(rows))


def _use_official_split(table: CaptionTable, folder: ImageFolder, split_file: Path | None) -> CaptionTable:
    """Set the official split of a json or of lists beside the captions; images that it does not name are excluded."""
    split_of, source = {image.path: "" for image in table.images}, "the official split"
    names: Iterable[tuple[Any, str]] = ()
    lists = sorted(Path(folder.data_dir).glob("**/Flickr_8k.*Images.txt"))
    if any(image.split for image in table.images):
        pass
    elif split_file:
        source = split_file.name
        names = ((record.fields.get("image"), str(record.fields.get("split"))) for record in read_json(split_file))
    elif lists:
        source = "Flickr_8k.trainImages.txt"
        names = ((line, path.name.split(".")[1].removesuffix("Images")) for path in lists for line in read_lines(path))
    for name, split in names:
        with suppress(ImageNotFound):  # a split may name more images than a copy of the data set has
            split_of[folder.find(str(name or "").strip())[1]] = SPLITS.get(split, "")
    splits = [image.split or split_of[image.path] for image in table.images]
    kept = [replace(image, split=split) for image, split in zip(table.images, splits, strict=True) if split]
    if not kept and (split_file or lists) and table.images:
        raise UserError(
            f"{source} names none of the {len(table.images)} images; expected the json of the same data set; "
            "set datamodule.karpathy_json=... or datamodule.official_split=false"
        )
    counts = Counter(image.split for image in kept)
    if len(counts) < 2:  # no split, or all images in one
        return replace(table, images=[replace(image, split=None) for image in table.images])
    log.info("split by %s: %s", source, dict(counts))
    num_excluded = table.num_pairs - sum(len(image.captions) for image in kept)
    return replace(table, images=kept, excluded={f"not in {source}": num_excluded} if num_excluded else {})
