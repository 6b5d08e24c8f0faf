"""Read tar shards (img2dataset/webdataset: `000012.jpg`, `.txt`, `.json` of a sample) as rows of a CaptionTable.

Nothing is unpacked: a row's `span` is the byte range of its image. Hostile names and links are skipped.
"""

import json
import re
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow
from src.datamodule.readers.encodings import clean_caption
from src.datamodule.readers.image_folder import find_path
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
EXPECTED = "expected uncompressed .tar files of images with .txt or .json members beside them"
# Key and suffix, at the first dot. Hidden, absolute and parent folders and webdataset's `__name__/` do not match.
MEMBER = re.compile(
    rf"(?:\./+)*(?!__[^/]*__/)((?:[^/\\.][^/\\]*/)*[^/\\.]+)\.({'|'.join(IMAGE_SUFFIXES)}|txt|json)",
    re.IGNORECASE,
)


@dataclass
class Sample:
    """Members of one key: byte range of the image, and captions as bytes."""

    span: tuple[int, int] | None = None
    txt: bytes = b""
    json: bytes = b""


def read_shards(
    data_dir: str | Path,
    train_shards: str | None = None,
    val_shards: str | None = None,
    test_shards: str | None = None,
) -> CaptionTable:
    """Read a folder of tar shards, in order; the arguments are the keys of configs/datamodule/webdataset.yaml.

    Folders train/, val/ (validation/) and test/ are an official split too. UserError where there are no or compressed
    shards, or one is damaged.
    """
    root = find_path("data_dir", data_dir, is_dir=True)
    table = CaptionTable([], [], 0)
    for path, split in _find_shards(root, {"train": train_shards, "val": val_shards, "test": test_shards}):
        samples = _read_samples(path)
        for key, sample in samples.items():
            image_id, captions = (
                f"{path.relative_to(root).as_posix()}/{key}",
                read_captions(sample.txt, sample.json),
            )
            if sample.span is None or not captions:
                reason = "no image" if sample.span is None else "no caption"
                table.skipped.append(SkippedRow(0, image_id, reason, str(path)))
            else:
                file = str(path.resolve())
                image = CaptionedImage(image_id, file, captions, image_id, split=split, span=sample.span)
                table.images.append(image)
        table.rows_read += len(samples)
    return table


def read_captions(txt: bytes, record: bytes) -> tuple[str, ...]:
    """Return the clean captions: the list `captions` of the json, else the txt, else the json's `caption`."""
    fields = None
    with suppress(ValueError, RecursionError):
        fields = json.loads(record)
    fields = fields if isinstance(fields, dict) else {}
    found = fields["captions"] if isinstance(fields.get("captions"), list) else []
    found = found or [txt.decode("utf-8", "replace") if txt else fields.get("caption")]
    clean = (clean_caption(caption) for caption in found if isinstance(caption, str))
    return tuple(dict.fromkeys(filter(None, clean)))


def _find_shards(root: Path, patterns: dict[str, str | None]) -> list[tuple[Path, str | None]]:
    """The tar files with their official split, in order of their names."""
    globs = {pattern: split for split, pattern in patterns.items() if pattern}
    for path in () if globs else sorted(root.rglob("*")):
        if path.name.lower().endswith(COMPRESSED):
            raise UserError(f"{str(path)!r} is a compressed archive; {EXPECTED}; decompress it (gunzip)")
    found: list[tuple[Path, str | None]] = []
    for pattern, split in (globs or {f"{name}/*.tar": split for name, split in SPLIT_FOLDERS.items()}).items():
        paths = sorted(root.glob(pattern))
        if globs and not paths:
            raise UserError(
                f"datamodule.{split}_shards={pattern!r} matches no file in {str(root)!r}; expected a "
                f"pattern such as '{split}-*.tar'; set datamodule.{split}_shards"
            )
        found += [(path, split) for path in paths]
    found = found or [(path, None) for path in sorted(root.glob("*.tar"))]
    if not found:
        raise UserError(f"datamodule.data_dir={str(root)!r} has no .tar file; {EXPECTED}; set datamodule.data_dir=...")
    return found


def _read_samples(path: Path) -> dict[str, Sample]:
    """The samples of a shard, in the order in which their keys first appear."""
    samples: dict[str, Sample] = {}
    scattered, last = set[str](), ""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                found = MEMBER.fullmatch(member.name)
                if found is None or not member.isreg() or member.issparse() or not member.name.isprintable():
                    continue
                key, suffix = found[1], found[2].lower()
                if key in samples and key != last:
                    scattered.add(key)
                sample, last = samples.setdefault(key, Sample()), key
                if suffix in IMAGE_SUFFIXES:
                    sample.span = sample.span or (member.offset_data, member.size)
                else:
                    file = tar.extractfile(member)
                    setattr(sample, suffix, file.read() if file else b"")
            if path.stat().st_size < tar.offset + tarfile.BLOCKSIZE:  # no empty block at the end
                raise tarfile.ReadError("it is truncated")
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"shard {str(path)!r}: {reason}; {EXPECTED}; download it again") from error
    if scattered:
        message = "%s: members of %d samples do not stand together and are lost in a stream; use tar --sort=name"
        log.warning(message, path.name, len(scattered))
    return samples
