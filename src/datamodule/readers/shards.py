"""Read tar shards (img2dataset/webdataset: `000012.jpg`, `.txt`, `.json` of a sample).

Nothing is unpacked: a row's `span` is the byte range of its image. Hostile names and links are skipped.
"""

import json
import re
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic")
EXPECTED = "expected an uncompressed .tar file of images with .txt or .json members beside them"
# Key and suffix, at the first dot. Hidden, absolute and parent folders and webdataset's `__name__/` do not match.
MEMBER = re.compile(
    rf"(?:\./+)*(?!__[^/]*__/)((?:[^/\\.][^/\\]*/)*[^/\\.]+)\.({'|'.join(IMAGE_SUFFIXES)}|txt|caption|json)",
    re.IGNORECASE,
)


@dataclass
class Sample:
    """Members of one key: name and byte range of the image, and captions as bytes."""

    name: str
    span: tuple[int, int] | None = None
    txt: bytes = b""
    json: bytes = b""

    def captions(self) -> list[Any]:
        """Return the list `captions` of the json, else the txt, else the json's `caption`."""
        fields: Any = None
        with suppress(ValueError, RecursionError):
            fields = json.loads(self.json)
        fields = fields if isinstance(fields, dict) else {}
        listed = fields["captions"] if isinstance(fields.get("captions"), list) else []
        lines = [line for line in self.txt.decode("utf-8", "replace").splitlines() if line.strip()]
        return listed or lines or [fields.get("caption")]


def read_samples(path: Path) -> list[Sample]:
    """Return the samples of a shard, in the order in which their keys first appear. UserError where it is damaged."""
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
                sample, last = samples.setdefault(key, Sample(key)), key
                if suffix not in IMAGE_SUFFIXES:
                    file = tar.extractfile(member)
                    setattr(sample, "json" if suffix == "json" else "txt", file.read() if file else b"")
                elif sample.span is None:
                    sample.name, sample.span = f"{key}.{found[2]}", (member.offset_data, member.size)
            if path.stat().st_size < tar.offset + tarfile.BLOCKSIZE:  # no empty block at the end
                raise tarfile.ReadError("it is truncated")
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"shard {str(path)!r}: {reason}; {EXPECTED}; download it again") from error
    if scattered:
        message = "%s: members of %d samples do not stand together and are lost in a stream; use tar --sort=name"
        log.warning(message, path.name, len(scattered))
    return [*samples.values()]
