"""Read tar shards (img2dataset/webdataset: `000012.jpg`, `.txt`, `.json` of a sample) as rows of a CaptionTable.

Nothing is unpacked: a row's `span` is the byte range of its image within the tar. Shards may come from anywhere: names
that leave the folder (`..`, absolute), links and members of unexpected size are skipped, nothing is unpickled.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow
from src.datamodule.readers.encodings import clean_caption, printable
from src.datamodule.readers.image_folder import find_folder
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXT_LIMIT = 2**20  # bytes of a caption member
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
EXPECTED = (
    "expected uncompressed .tar files of images (jpg, png, webp) with .txt or .json members beside them"
)
# Key and suffix as webdataset separates them: at the first dot of the base name.
MEMBER = re.compile(r"((?:[^/]+/)*[^/.]+)\.([A-Za-z]+)")
HIDDEN = re.compile(r"__[^/]*__/")


@dataclass(slots=True)
class _Sample:
    """Members of one key: byte range of the image, captions, and the member number of the last one."""

    span: tuple[int, int] | None = None
    text: bytes = b""
    record: bytes = b""
    error: str = ""
    last: int = 0


def read_shards(
    data_dir: str | Path,
    train_shards: str | None = None,
    val_shards: str | None = None,
    test_shards: str | None = None,
) -> CaptionTable:
    """Read a folder of tar shards.

    Args:
        data_dir: holds `*.tar`; or train/, val/ (validation/), test/ with `*.tar`, which then are the official split.
        train_shards, val_shards, test_shards: glob patterns within `data_dir` ("train-*.tar") for the official split.

    Returns:
        Samples in the order of the shards. Samples without image or caption are in `skipped`; their `line` is 0.

    Raises:
        UserError: no folder, no or compressed shards, or a shard that is truncated or no tar file.
    """
    root = find_folder("datamodule.data_dir", data_dir, "a folder of .tar shards")
    images, skipped, rows_read = [], [], 0
    for path, split in _find_shards(root, {"train": train_shards, "val": val_shards, "test": test_shards}):
        name, num_apart = path.relative_to(root).as_posix(), 0
        for key, sample, apart in _read_samples(path):
            rows_read += 1
            num_apart += apart
            image_id = f"{name}/{key}"
            captions = read_captions(sample.text, sample.record)
            error = sample.error or ("no image" if sample.span is None else "" if captions else "no caption")
            if error:
                skipped.append(SkippedRow(0, image_id, error, str(path)))
            else:
                images.append(
                    CaptionedImage(
                        image_id, str(path.resolve()), captions, image_id, split=split, span=sample.span
                    )
                )
        if num_apart:
            log.warning(
                "%s: members of %d samples do not stand together; they are joined here, but programs that read shards "
                "as a stream lose them; write shards with sorted names (tar --sort=name)",
                name,
                num_apart,
            )
    return CaptionTable(images, skipped, rows_read)


def read_captions(text: bytes, record: bytes) -> tuple[str, ...]:
    """Return the clean captions: the list `captions` of the json, else the txt, else the json's `caption`."""
    try:
        fields = json.loads(record) if record else {}
    except (ValueError, RecursionError):
        fields = {}
    fields = fields if isinstance(fields, dict) else {}
    several = fields.get("captions")
    found = several if isinstance(several, list) and several else [text.decode("utf-8", "replace")]
    if not text and found == [""]:
        found = [fields.get("caption")]
    clean = (clean_caption(caption) for caption in found if isinstance(caption, str))
    return tuple(dict.fromkeys(caption for caption in clean if caption))


def _find_shards(root: Path, patterns: dict[str, str | None]) -> list[tuple[Path, str | None]]:
    """The tar files with their official split, in order of their names."""
    given = {split: pattern for split, pattern in patterns.items() if pattern}
    folders = {name: split for name, split in SPLIT_FOLDERS.items() if (root / name).is_dir()}
    found: list[tuple[Path, str | None]]
    if given:
        found = [(path, split) for split, pattern in given.items() for path in sorted(root.glob(pattern))]
        for split, pattern in given.items():
            if split not in {name for _, name in found}:
                raise UserError(
                    f"datamodule.{split}_shards={pattern!r} matches no file in {printable(str(root))!r}; expected a "
                    f"pattern such as '{split}-*.tar'; set datamodule.{split}_shards"
                )
        return found
    for path in sorted(root.rglob("*")):
        if path.name.lower().endswith(COMPRESSED):
            raise UserError(
                f"{printable(str(path))!r} is a compressed archive; {EXPECTED}; decompress it (gunzip) and remove it"
            )
    found = [(path, split) for name, split in folders.items() for path in sorted((root / name).glob("*.tar"))]
    found = found or [(path, None) for path in sorted(root.glob("*.tar"))]
    if not found:
        raise UserError(
            f"datamodule.data_dir={printable(str(root))!r} has no .tar file; {EXPECTED}; set datamodule.data_dir=..."
        )
    return found


def _read_samples(path: Path) -> Iterator[tuple[str, _Sample, bool]]:
    """Key, sample, and whether its members stood apart, in the order in which keys first appear."""
    samples: dict[str, _Sample] = {}
    apart: set[str] = set()
    size, number = path.stat().st_size, 0
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
                found = _match(member)
                if found is None:
                    continue
                if member.offset_data + member.size > size:
                    raise _invalid(path, "it is truncated")
                key, suffix = found
                sample, number = samples.setdefault(key, _Sample(last=number)), number + 1
                if sample.last != number - 1:
                    apart.add(key)
                sample.last = number
                _add(sample, suffix, member, tar)
            if size < tar.offset + tarfile.BLOCKSIZE:  # no empty block at the end
                raise _invalid(path, "it is truncated")
    except (tarfile.TarError, OSError, EOFError) as error:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        reason = "it is compressed (gzip)" if compressed else str(error) or type(error).__name__
        raise _invalid(path, reason) from error
    yield from ((key, sample, key in apart) for key, sample in samples.items())


def _match(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Key and lower-case suffix of a member that is read; None for others. `./` in front is dropped."""
    name = member.name
    while name.startswith("./"):
        name = name[2:].lstrip("/") if name[2:3] == "/" else name[2:]
    found = MEMBER.fullmatch(name)
    if found is None or not member.isreg() or member.issparse() or not name.isprintable():
        return None
    suffix = found[2].lower()
    leaves = name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name)
    known = suffix in IMAGE_SUFFIXES or suffix in ("txt", "json")
    return None if leaves or HIDDEN.match(name) or not known else (found[1], suffix)


def _add(sample: _Sample, suffix: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    """Record one member; the first image of a sample counts."""
    if suffix in IMAGE_SUFFIXES:
        sample.span = sample.span or (member.offset_data, member.size)
    elif member.size > TEXT_LIMIT:
        sample.error = f"caption file over {TEXT_LIMIT:,} bytes"
    elif getattr(sample, "text" if suffix == "txt" else "record"):
        sample.error = "duplicate member"
    else:
        file = tar.extractfile(member)
        setattr(sample, "text" if suffix == "txt" else "record", file.read() if file else b"")


def _invalid(path: Path, reason: str) -> UserError:
    return UserError(
        f"shard {printable(str(path))}: {printable(' '.join(reason.split()))}; {EXPECTED}; fetch it again or remove it"
    )
