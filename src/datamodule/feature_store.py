"""The frozen backbone's output on disk: shards that are whole or not there, read by memory map.

P patches + class token, D width, N images of a shard. Each shard is a safetensors file with one tensor
`features` (N,P,D) and, in its header, the N keys that its rows belong to.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from src.datamodule.caption_table import CaptionedImage
from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)
SHARD_IMAGES = 64
STALE_SECONDS = 3600  # a temporary file that old belongs to a process that was killed


def feature_key(image: CaptionedImage, view: int = 0) -> str:
    """What features are kept under: it changes with the file's name, size or time, the box and the view.

    A file that is not there has a key too, which no shard holds.
    """
    try:
        found = os.stat(image.path)
        state = f"{found.st_size}:{found.st_mtime_ns}"
    except OSError:
        state = "missing"
    text = f"{Path(image.path).name}:{state}:{image.box}:{view}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class ShardedFeatures:
    """Features of images by `image_id`, from all shards of one folder; a `FeatureStore`.

    num_views: views of each image, of which view 0 is the picture as it is.
    """

    def __init__(self, folder: Path, num_views: int = 1) -> None:
        self.folder, self.num_views = folder, num_views
        self._rows: dict[str, tuple[Tensor, int]] = {}
        self._keys: dict[tuple[str, int], str] = {}
        self._read: set[Path] = set()

    def add_images(self, images: Iterable[CaptionedImage], views: int) -> list[tuple[CaptionedImage, int]]:
        """Note the keys of images in views 0 to `views` - 1; returns the (image, view) that no shard holds."""
        wanted = [(image, view) for view in range(views) for image in images]
        for image, view in wanted:
            self._keys[image.image_id, view] = feature_key(image, view)
        return self.lacking(wanted)

    def lacking(self, wanted: Iterable[tuple[CaptionedImage, int]]) -> list[tuple[CaptionedImage, int]]:
        """Those of the noted (image, view) that no shard holds."""
        return [(image, view) for image, view in wanted if self._keys[image.image_id, view] not in self._rows]

    def read_shards(self) -> None:
        """Map the shards that were not there before; damaged ones are removed, to be made again."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path in self._read:
                continue
            try:
                with safe_open(path, "pt") as file:
                    keys = json.loads((file.metadata() or {})["keys"])
                    features = file.get_tensor("features")
                if len(keys) != len(features) or features.ndim != 3:
                    raise ValueError("keys and rows differ")
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s is damaged (%s) and is made again", path, type(error).__name__)
                path.unlink(missing_ok=True)
                continue
            self._read.add(path)
            self._rows.update((key, (features, row)) for row, key in enumerate(keys))

    def write_shard(self, wanted: Sequence[tuple[CaptionedImage, int]], features: Tensor) -> None:
        """Write features (N,P,D) of N (image, view), whole or not at all.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        keys = [self._keys[image.image_id, view] for image, view in wanted]
        name = hashlib.blake2b("".join(keys).encode(), digest_size=12).hexdigest()
        with atomic_write(self.folder / f"{name}.safetensors", "wb") as file:
            file.write(save({"features": features.contiguous()}, {"keys": json.dumps(keys)}))

    def get(self, image_id: str, view: int = 0) -> Tensor:
        """Features (P,D) of a view.

        Raises:
            KeyError: no shard holds them.
        """
        features, row = self._rows[self._keys[image_id, view]]
        return features[row]


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def clean_caches(cache_dir: Path, keep: Path, limit_bytes: float) -> None:
    """Remove leftovers of killed writers, and the caches that were not used for longest while all exceed the limit."""
    for path in cache_dir.glob("*/.*.tmp"):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            path.unlink(missing_ok=True)
    others = [path for path in cache_dir.iterdir() if path.is_dir() and path != keep]
    sizes = {path: folder_bytes(path) for path in [*others, keep] if path.exists()}
    for path in sorted(others, key=lambda path: path.stat().st_mtime):
        if sum(sizes.values()) <= limit_bytes:
            return
        log.info(
            "removing the feature cache %s (%.1f GB), which was not used for longest", path, sizes[path] / 1e9
        )
        shutil.rmtree(path, ignore_errors=True)
        del sizes[path]


def feature_bytes(shape: tuple[int, int], dtype: torch.dtype, count: int) -> int:
    """Bytes of `count` features of shape (P,D)."""
    return shape[0] * shape[1] * dtype.itemsize * count
