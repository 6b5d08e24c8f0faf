"""Cached features: the frozen backbone's output on disk, keyed by image content, read by memory map.

N images of a shard, P patches + class token, D width. A shard is a safetensors file with one tensor `features`
(N,P,D) and, in its header, the N keys of its rows and a checksum of all.
"""

import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import UnreadableImage, read_bytes
from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)
SHARD_IMAGES = 64
SUBFOLDER = "caption_features"  # below the user's cache_dir, which may hold foreign files
MARKER = ".made_by_feature_cache"  # only folders with it are counted and pruned
OUR_FILE = re.compile(r"[0-9a-f]{24}\.safetensors|\.[0-9a-f]{24}\.safetensors\..*\.tmp")
STALE_SECONDS = 3600  # a temporary file that old belongs to a process that was killed
HEADER_BYTES, KEY_BYTES = 300, 40  # of a shard's header, at most: once, and for each key

View = tuple[CaptionedImage, int]  # an image and the number of its view; view 0 is the image as it is


def content_digest(data: bytes | bytearray) -> str:
    """Hash the undecoded bytes of an image."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def feature_key(digest: str, image: CaptionedImage, view: int = 0, seed: int = 0) -> str:
    """Return the key of the features of an image whose bytes have the hash `digest`.

    It depends on the image's content and box; for views above 0 also on what their random crop depends on.
    """
    text = f"{digest}:{image.box}" + (f":{view}:{seed}:{image.image_id}" if view else "")
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def image_digest(image: CaptionedImage) -> str:
    """Hash an image's file, once per file, size and time; "" where it cannot be read."""
    try:
        found = os.stat(image.path)
        return _file_digest(image.path, image.span, found.st_size, found.st_mtime_ns)
    except (OSError, ValueError, UnreadableImage):
        return ""


@lru_cache(maxsize=2**20)
def _file_digest(path: str, span: tuple[int, int] | None, size: int, mtime_ns: int) -> str:
    return content_digest(read_bytes(path, span))


@dataclass(eq=False)
class Shard:
    """A shard whose header was read; `features` (N,P,D) are mapped."""

    path: Path
    keys: list[str]
    features: Tensor
    checksum: int
    size: int  # bytes of the file
    verified: bool = False


class ShardedFeatures:
    """Features by `image_id` and view from the shards of one folder; a `FeatureStore`.

    num_views: views of each training image. seed: of their crops. workers: threads that hash files.
    """

    def __init__(self, folder: Path, num_views: int = 1, seed: int = 0, workers: int = 1) -> None:
        self.folder, self.num_views, self.seed, self.workers = folder, num_views, seed, max(workers, 1)
        self._keys: dict[tuple[str, int], str] = {}  # of all images that were added
        self._shards: dict[Path, Shard] = {}
        self._rows: dict[str, tuple[Shard, int]] = {}

    def get(self, image_id: str, view: int = 0) -> Tensor:
        """Return the features (P,D) of a view.

        Raises:
            KeyError: no shard has them.
        """
        shard, row = self._rows[self._keys[image_id, view]]
        return shard.features[row]

    def add_images(self, images: Sequence[CaptionedImage], views: int) -> list[View]:
        """Add images in views 0 to `views` - 1, hashing their files; return those that no sound shard has."""
        with ThreadPoolExecutor(self.workers) as pool:
            digests = list(pool.map(image_digest, images))
        for view in range(views):
            for image, digest in zip(images, digests, strict=True):
                key = feature_key(digest, image, view, self.seed) if digest else ""
                self._keys[image.image_id, view] = key
        return self.missing([(image, view) for view in range(views) for image in images])

    def missing(self, wanted: Iterable[View]) -> list[View]:
        """Return those of the added views that no sound shard has; damaged shards are removed."""
        keys = [(view, self._keys[view[0].image_id, view[1]]) for view in wanted]
        shards = {self._rows[key][0] for _, key in keys if key in self._rows}
        unverified = sorted((s for s in shards if not s.verified), key=lambda shard: shard.path)
        with ThreadPoolExecutor(self.workers) as pool:
            checksums = pool.map(lambda shard: _checksum(shard.keys, shard.features), unverified)
            for shard, checksum in zip(unverified, checksums, strict=True):
                shard.verified = checksum == shard.checksum
                if shard.verified:
                    with suppress(OSError):
                        os.utime(shard.path)  # what was not used for longest is pruned first
                else:
                    log.warning("%s is damaged (wrong checksum) and is written again", shard.path)
                    self._remove(shard)
        return [view for view, key in keys if key not in self._rows]

    def read_shards(self) -> None:
        """Read the headers of new shards; unreadable ones are removed, to be written again.

        Raises:
            OSError: the folder cannot be read, or a shard not removed.
        """
        for path in sorted(self.folder.glob("*.safetensors")):
            if path in self._shards or not OUR_FILE.fullmatch(path.name):
                continue
            try:
                with safe_open(path, "pt") as file:
                    index = json.loads((file.metadata() or {})["index"])
                    features = file.get_tensor("features")
                keys, checksum = index["keys"], index["checksum"]
                if len(keys) != len(features) or features.ndim != 3:
                    raise ValueError("keys and rows differ")
                shard = Shard(path, keys, features, checksum, path.stat().st_size)
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s is damaged (%s) and is written again", path, type(error).__name__)
                path.unlink(missing_ok=True)
                continue
            self._shards[path] = shard
            self._rows.update((key, (shard, row)) for row, key in enumerate(keys))

    def create(self) -> None:
        """Create the folder with its marker and set its time of use.

        Raises:
            OSError: it cannot be created or written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARKER).touch()
        os.utime(self.folder)

    def write_shard(self, keys: Sequence[str], features: Tensor) -> None:
        """Write features (N,P,D) under their N keys, whole or not at all.

        Raises:
            OSError, SafetensorError: the disk is full or the folder cannot be written.
        """
        features = features.contiguous()
        name = hashlib.blake2b("".join(keys).encode(), digest_size=12).hexdigest()
        # One entry: safetensors writes several in random order, and equal features are to give equal files.
        index = json.dumps({"keys": list(keys), "checksum": _checksum(keys, features)})
        with atomic_write(self.folder / f"{name}.safetensors", "wb") as file:
            file.write(save({"features": features}, {"index": index}))

    def used_bytes(self) -> float:
        """Return the bytes on disk of the features of all added images."""
        used = {key for key in self._keys.values() if key in self._rows}
        return sum(shard.size / len(shard.keys) for shard, _ in map(self._rows.__getitem__, used))

    def prune(self, limit: float, keep_used: bool = True) -> None:
        """Remove caches and shards not used for longest until all below the parent folder take `limit` bytes.

        In order: other marked folders; shards of this one without a row of an added image; rows of images that
        were not added. `keep_used=False` removes the added images' shards too. Foreign files stay.

        Raises:
            OSError: a shard cannot be removed or written.
        """
        others = [
            path.parent for path in self.folder.parent.glob(f"*/{MARKER}") if path.parent != self.folder
        ]
        sizes = {path: _folder_bytes(path) for path in others}
        total = sum(sizes.values()) + sum(shard.size for shard in self._shards.values())
        for folder in [*others, self.folder]:
            _remove_files(folder, older_than=STALE_SECONDS, suffix=".tmp")
        for folder in sorted(others, key=_used_at):
            if total <= limit:
                return
            log.info(
                "removing the feature cache %s (%.1f GB), unused for longest", folder, sizes[folder] / 1e9
            )
            total -= sizes[folder]
            _remove_files(folder)
            with suppress(OSError):  # it holds foreign files
                (folder / MARKER).unlink(missing_ok=True)
                folder.rmdir()
        used = set(self._keys.values()) if keep_used else set()
        for shard in sorted(self._shards.values(), key=lambda shard: _used_at(shard.path)):
            live = [row for row, key in enumerate(shard.keys) if key in used and self._rows[key][0] is shard]
            if total <= limit:
                return
            if len(live) == len(shard.keys):
                continue
            if live:
                self.write_shard([shard.keys[row] for row in live], shard.features[live])
            total -= round(shard.size * (1 - len(live) / len(shard.keys)))
            self._remove(shard)
        self.read_shards()

    def _remove(self, shard: Shard) -> None:
        shard.path.unlink(missing_ok=True)
        self._shards.pop(shard.path, None)
        for key in shard.keys:
            if key in self._rows and self._rows[key][0] is shard:
                del self._rows[key]


def estimate_bytes(shape: tuple[int, int], dtype: torch.dtype, count: int) -> int:
    """Return the bytes on disk of `count` features of shape (P,D)."""
    header = HEADER_BYTES * -(-count // SHARD_IMAGES) + KEY_BYTES * count
    return shape[0] * shape[1] * dtype.itemsize * count + header


def _checksum(keys: Sequence[str], features: Tensor) -> int:
    return zlib.crc32(features.view(torch.uint8).numpy().data, zlib.crc32("".join(map(str, keys)).encode()))


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _our_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if OUR_FILE.fullmatch(path.name) and path.is_file()]


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _our_files(folder))


def _remove_files(folder: Path, older_than: float = 0, suffix: str = "") -> None:
    for path in _our_files(folder):
        if path.name.endswith(suffix) and time.time() - _used_at(path) >= older_than:
            path.unlink(missing_ok=True)
