"""Captioned shards in img2dataset's layout: `000000012.jpg`, `.txt`, `.json` of a sample lie side by side.

A shard may come from anywhere. Nothing is unpacked to disk, no pickle is decoded, names that climb out of a
folder are passed over, and a member that would swell in memory stops the run.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import BYTE_LIMIT
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)

IMAGE_KEYS = ("jpg", "jpeg", "png", "webp")
TEXT_KEYS = ("txt", "json")
TEXT_LIMIT = 2**20  # bytes of a caption file
INDEX_NAME = ".captioner_shards.json"
# Key and suffix as the webdataset library parts them: at the first dot of the file's own name.
ODD = r"\x00-\x1f\x7f\ud800-\udfff"  # control characters, and bytes that are no text
NAME = re.compile(rf"((?:[^{ODD}]*/)?[^/.{ODD}]+)\.([A-Za-z]+)")
HIDDEN = re.compile(r"__[^/]*__/")  # folders that the library passes over


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture's bytes with its captions; `name` is shard and key: "00003.tar/000030012"."""

    name: str
    data: bytes
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file, how many samples with picture and caption it holds, and how many without one of them.

    name: its path within the folder of shards, "/" between parts, which opens the ids of its samples.
    """

    path: str
    name: str
    samples: int
    incomplete: int = 0


def wanted(name: str) -> bool:
    """Whether a member of a shard is read at all: a picture or caption whose name stays inside the shard."""
    match = NAME.fullmatch(name)
    if match is None or match[2].lower() not in (*IMAGE_KEYS, *TEXT_KEYS):
        return False
    return not (HIDDEN.match(name) or name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name))


def read_sample(shard: str, fields: Mapping[str, Any]) -> Sample | None:
    """The sample of members that the webdataset library grouped; None without picture or caption."""
    data = next((fields[key] for key in IMAGE_KEYS if fields.get(key)), None)
    captions = read_captions(fields.get("txt"), fields.get("json"))
    if data is None or not captions:
        return None
    return Sample(f"{shard}/{fields['__key__']}", data, captions)


def read_captions(text: bytes | None, record: bytes | None) -> tuple[str, ...]:
    """Captions, whitespace collapsed: the list `captions` of the json, else the txt, else its `caption`."""
    try:
        fields = json.loads(record) if record else {}
    except (ValueError, RecursionError):
        fields = {}
    fields = fields if isinstance(fields, dict) else {}
    several = fields.get("captions")
    found = several if isinstance(several, list) else []
    if not found:
        found = [text.decode("utf-8", "replace") if text else fields.get("caption")]
    clean = (" ".join(caption.split()) for caption in found if isinstance(caption, str))
    return tuple(dict.fromkeys(caption for caption in clean if caption))


def index_shards(folder: Path, paths: Sequence[Path]) -> list[Shard]:
    """Count the samples of each shard, in the order given.

    The counts are kept in `folder` (where it can be written) and read again as long as a shard's size and
    time of change stay.

    Raises:
        UserError: a shard is no plain tar file, is cut off, or holds what no captioned shard holds.
    """
    known = _read_index(folder / INDEX_NAME)

    def count(path: Path) -> tuple[str, list[int]]:
        found = path.stat()
        stamp = f"{_name(folder, path)}:{found.st_size}:{found.st_mtime_ns}"
        return stamp, known.get(stamp) or _count(path)

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(count, paths))
    if not dict(counts).keys() <= known.keys():
        _write_index(folder / INDEX_NAME, known | dict(counts))
    return [
        Shard(str(path.resolve()), _name(folder, path), samples, incomplete)
        for path, (_, (samples, incomplete)) in zip(paths, counts, strict=True)
    ]


def read_images(shard: Shard) -> Iterator[CaptionedImage]:
    """The samples of a shard as rows of a table; their pictures stay in the shard.

    Raises:
        UserError: as `index_shards`.
    """
    for fields in _groups(Path(shard.path)):
        captions = read_captions(fields.get("txt"), fields.get("json"))
        suffix = next((key for key in IMAGE_KEYS if key in fields), None)
        if suffix and captions:
            key = fields["__key__"].decode()
            name = f"{shard.name}/{key}"
            yield CaptionedImage(name, f"{shard.path}/{key}.{suffix}", captions, shard.name)


def _count(path: Path) -> list[int]:
    """Samples with picture and caption, and samples without one of them."""
    counts = [0, 0]
    for fields in _groups(path):
        whole = any(key in fields for key in IMAGE_KEYS)
        whole = whole and bool(read_captions(fields.get("txt"), fields.get("json")))
        counts[0 if whole else 1] += 1
    return counts


def _groups(path: Path) -> Iterator[dict[str, bytes]]:
    """The wanted members of each sample: captions whole, of pictures one byte to say that there is one."""
    size = path.stat().st_size
    current: str | None = None
    fields: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep a million headers
                if not member.isreg() or not wanted(member.name):
                    continue
                match = NAME.fullmatch(member.name)
                assert match is not None
                key, suffix = match[1], match[2].lower()
                _check_member(path, member, size, suffix)
                if key != current:
                    if fields:
                        yield fields
                    current, fields = key, {"__key__": key.encode()}
                if suffix in fields:
                    raise _broken(path, f"{member.name} occurs twice")
                file = tar.extractfile(member)
                assert file is not None
                fields[suffix] = file.read() if suffix in TEXT_KEYS else file.read(1)
            if size < tar.offset + tarfile.BLOCKSIZE:  # no empty block at the end
                raise _broken(path, "it is cut off")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _broken(path, str(error) or type(error).__name__) from error
    if fields:
        yield fields


def _check_member(path: Path, member: tarfile.TarInfo, size: int, suffix: str) -> None:
    limit = TEXT_LIMIT if suffix in TEXT_KEYS else BYTE_LIMIT
    if member.issparse() or member.size > limit:
        raise _broken(path, f"{member.name} would take {member.size:,} bytes, more than {limit:,}")
    if member.offset_data + member.size > size:
        raise _broken(path, "it is cut off")


def _broken(path: Path, reason: str) -> UserError:
    return UserError(
        f"shard {path}: {' '.join(reason.split())}; expected an uncompressed tar of jpg, png or webp with "
        "txt or json; fetch it again or take it out of the folder"
    )


def _name(folder: Path, path: Path) -> str:
    inside = path.is_relative_to(folder)
    return (path.relative_to(folder) if inside else path).as_posix()


def _read_index(path: Path) -> dict[str, list[int]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {stamp: [int(number) for number in row] for stamp, row in rows.items() if len(row) == 2}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.info("the shard index %s is not readable and is made again (%s)", path, error)
        return {}


def _write_index(path: Path, counts: Mapping[str, Sequence[int]]) -> None:
    try:
        with atomic_write(path) as file:
            json.dump(counts, file)
    except OSError as error:
        log.info("the shard index cannot be kept (%s); shards are counted anew each time", error)
