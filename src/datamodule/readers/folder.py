"""Read any folder of captioned images: find its captions files, read their rows, look up the images."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow, with_unique_ids
from src.datamodule.readers import files
from src.datamodule.readers.files import IMAGE_SUFFIXES, SPLITS, ImageFolder, ImageNotFound, clean_caption, printable
from src.datamodule.readers.medicat import read_medicat
from src.datamodule.readers.records import Embedded, read_json, read_parquet, read_sidecars, read_tar
from src.datamodule.readers.tables import Columns, choose_columns, read_delimited, read_texts
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
READERS = {".tar": read_tar, ".parquet": read_parquet, **dict.fromkeys((".json", ".jsonl", ".ndjson"), read_json)}
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
    data_dir: str | Path, captions_file: str | Path | None = None, images_dir: str | Path | None = None,
    image_column: str | None = None, caption_columns: str | Sequence[str] | None = None,
    split_column: str | None = None, group_column: str | None = None,
    karpathy_json: str | Path | None = None, official_split: bool = True,
) -> CaptionTable:  # fmt: skip
    """Read a folder of captioned images in any usual layout, in the order of its captions files; images are not opened.

    The arguments are the keys of configs/datamodule/folder.yaml, docs/formats.md lists the layouts. Images that an
    official split does not name are in `excluded`. UserError where a file or column is missing or of unknown format.
    """
    root = files.find_path("data_dir", data_dir, is_dir=True)
    folder = ImageFolder(root, images_dir)
    captions = [caption_columns] if isinstance(caption_columns, str) else list(caption_columns or ())
    given = Columns(image_column or "", captions, split_column, group_column)
    split_file = files.find_first(
        "karpathy_json", karpathy_json, root, ("dataset_flickr8k.json", "dataset_flickr30k.json")
    )
    rows: list[Row] = []
    problem = None
    for path in (path for paths in _find_captions_files(root, captions_file) if not rows for path in paths):
        if path.suffix == ".jsonl" and any("pdf_hash" in line for line in islice(files.read_lines(path), 1)):
            return read_medicat(root, path, images_dir)
        try:
            rows += _read_rows(path, folder, given)
        except UserError as error:
            if captions_file or path.suffix in (".parquet", ".tar"):
                raise
            problem = problem or error
            log.warning("no captions are read from %s: %s", path.name, error)
    rows = rows or list(_sidecar_rows(folder))
    if not rows:
        found = ", ".join(sorted(path.name for path in root.glob("*"))[:8]) or "nothing"
        found = f"datamodule.data_dir={str(data_dir)!r} has no captions file (it holds {printable(found)})"
        expected = "expected a table of image names and captions, or a .txt file beside each image"
        raise problem or UserError(f"{found}; {expected}; set datamodule.captions_file=...")
    return _use_official_split(_build_table(rows, folder), folder, split_file, official_split)


def _find_captions_files(root: Path, given: str | Path | None) -> list[list[Path]]:
    """The files that are given (a name or pattern), else for each pattern those that match it."""
    if given is not None:
        return [sorted(root.glob(str(given))) if "*" in str(given) else [files.find_path("captions_file", given, root)]]
    paths: list[Path] = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        subfolders[:] = sorted(name for name in subfolders if name[0] not in "._") if depth < DEPTH else []
        # "a.txt" beside "a.jpg" is a caption, "0.parquet" beside "0.tar" or "0/" says how it was downloaded.
        stems = {os.path.splitext(name)[0] for name in names if name.lower().endswith((*IMAGE_SUFFIXES, ".tar"))}
        stems |= {name for name in subfolders if name.isdigit()}
        paths += [Path(folder, n) for n in sorted(names) if os.path.splitext(n)[0] not in stems or n.endswith(".tar")]
    for path in (path for path in paths if re.search(r"\.(tgz|tar\.\w+)$", path.name.lower())):
        raise UserError(f"{str(path)!r} is a compressed archive; expected .tar files; decompress it (gunzip)")
    return [[path for path in paths if re.fullmatch(text, path.name, re.IGNORECASE)] for text in CAPTIONS_FILES]


def _read_rows(path: Path, folder: ImageFolder, given: Columns) -> Iterator[Row]:
    """Yield a row per caption of a captions file; log which columns were chosen."""
    relative = Path(os.path.relpath(path, folder.data_dir))
    base, file_split = "", ""
    if ".." not in relative.parts:
        base, file_split = relative.parent.as_posix().removeprefix("."), files.split_of_path(relative)
    base += "/" * bool(base)
    is_image = partial(folder.has, base=base)
    read_file = READERS.get(path.suffix.lower(), partial(read_delimited, is_image=is_image))
    records = read_file(path)
    if not records and path.suffix != ".tar":
        raise UserError(f"{str(path)!r} has no captions; expected a row for each caption; name another captions file")
    columns = choose_columns(path, records, is_image, given)
    if [columns.image, *columns.captions, columns.split or ""] != ["image", "caption", ""]:  # chosen among others
        captions = ", ".join(map(repr, columns.captions))
        extra = f", split from {columns.split!r}" if columns.split else ""
        log.info("%s: images from column %r, captions from %s%s", path.name, columns.image, captions, extra)
    for line, fields, error in records:
        if error:
            yield Row(line, re.split(r"[\t|;,]", fields[""])[0], fields[""], error)
            continue
        image, group = fields.get(columns.image), str(fields.get(columns.group) or "") if columns.group else ""
        name, span = image if isinstance(image, Embedded) else (str(image or ""), None)
        file = str(path.resolve()) if span else ""
        split = SPLITS.get(str(fields.get(columns.split)).strip().lower(), "") if columns.split else file_split
        for text in read_texts(fields, columns.captions):
            yield Row(line, name, text, "", split, group, base, file, span)


def _sidecar_rows(folder: ImageFolder) -> Iterator[Row]:
    """Yield a row per caption of the images that have a .txt, .caption or .json file of their name beside them."""
    names = set(folder.names)
    for name in (name for name in folder.names if name.lower().endswith(IMAGE_SUFFIXES)):
        stem, texts = os.path.splitext(name)[0], {}
        for end in (end for end in (".caption", ".txt", ".json") if stem + end in names):
            texts[end] = "\n".join(files.read_lines(Path(folder.root, stem + end))).encode()
        text = texts.get(".txt") or texts.get(".caption", b"")
        for caption in read_sidecars(text, texts.get(".json", b"")) if texts else ():
            yield Row(0, name, caption, split=files.split_of_path(Path(name).parent / "_"))


def _build_table(rows: Sequence[Row], folder: ImageFolder) -> CaptionTable:
    """Look up the images and clean the captions; list the rows that cannot be used."""
    images: dict[tuple[str, str, Any], CaptionedImage] = {}
    captions: dict[tuple[str, str, Any], dict[str, None]] = {}
    skipped: list[SkippedRow] = []
    for row in rows:
        caption = clean_caption(row.caption) if isinstance(row.caption, str) else ""
        try:
            if row.error:
                raise ImageNotFound(row.error, str(row.caption))
            name, path, group = row.name, row.path, ""
            if not path:
                name, path, group = folder.find(row.name.strip(), row.base, row.split)
            key = (name, path, row.span)
            if not caption or caption in captions.get(key, ()):
                raise ImageNotFound("duplicate pair" if caption else "empty caption", str(row.caption))
        except ImageNotFound as error:
            skipped.append(SkippedRow(row.line, printable(row.name.strip()), error.reason, error.detail))
            continue
        image = CaptionedImage(name, path, (), row.group or group, split=row.split or None, span=row.span)
        images.setdefault(key, image)
        captions.setdefault(key, {})[caption] = None
    named = [replace(image, captions=tuple(captions[key])) for key, image in images.items()]
    return CaptionTable(_name_images(named, folder.data_dir), skipped, len(rows))


def _name_images(images: list[CaptionedImage], data_dir: str) -> list[CaptionedImage]:
    """Set unique ids, without the folder that all images are in, and the group of images that have none."""
    count = Counter((image.image_id, image.path) for image in images if image.span)
    shared = os.path.commonprefix([image.image_id for image in images])  # noqa: RUF071  cut to a folder
    shared = shared[: shared.rfind("/") + 1]
    named = []
    for image in images:
        is_row = count[image.image_id, image.path] > 1 and len(count) > 1  # a row per caption of an image
        group = image.group or (image.image_id if is_row else "")
        named.append(replace(image, image_id=image.image_id.removeprefix(shared), group=group.removeprefix(shared)))
    return [replace(image, group=image.group or image.image_id) for image in with_unique_ids(named, data_dir)]


def _use_official_split(table: CaptionTable, folder: ImageFolder, file: Path | None, official: bool) -> CaptionTable:
    """Set the official split of a json or of lists beside the captions; images that it does not name are excluded."""
    images, source = table.images if official else [], "the official split"
    lists = sorted(Path(folder.data_dir).glob("**/Flickr_8k.*Images.txt"))
    if (file or lists) and images and not any(image.split for image in images):
        source = file.name if file else "Flickr_8k.trainImages.txt"
        names = [(line, path.name[10:].removesuffix("Images.txt")) for path in lists for line in files.read_lines(path)]
        if file:
            names = [(str(row.get("image", "")), str(row.get("split"))) for _, row, _ in read_json(file)]
        split_of: dict[str, str] = {}
        for name, split in names:
            with suppress(ImageNotFound):  # a split may name more images than a copy of the data set has
                split_of[folder.find(name.strip())[1]] = SPLITS.get(split, "")
        images = [replace(image, split=split_of.get(image.path)) for image in images]
        if not any(image.split for image in images):
            problem = f"{source} names none of the {len(images)} images; expected the json of the same data set"
            raise UserError(f"{problem}; set datamodule.karpathy_json=... or datamodule.official_split=false")
    kept = [image for image in images if image.split]
    counts = Counter(image.split for image in kept)
    if len(counts) < 2:  # no split, or all images in one
        return replace(table, images=[replace(image, split=None) for image in table.images])
    log.info("split by %s: %s", source, dict(counts))
    num_excluded = table.num_pairs - sum(len(image.captions) for image in kept)
    return replace(table, images=kept, excluded={f"not in {source}": num_excluded} if num_excluded else {})
