"""Cache the frozen backbone's output on disk, once per image; later epochs and runs start from there."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from torch import Tensor

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_dataset import decode_resized, view_crop
from src.datamodule.feature_store import (
    SHARD_IMAGES,
    SUBFOLDER,
    ShardedFeatures,
    View,
    content_digest,
    estimate_bytes,
    feature_key,
)
from src.datamodule.images.decode import UnreadableImage, read_image_bytes
from src.datamodule.loader import choose_workers, read_ahead, record_unreadable
from src.models.vit_gpt2 import VitGpt2
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class FeatureCache(Callback):
    """Let the data module serve cached features of the frozen backbone instead of pixels.

    Without a frozen backbone, with `datamodule.augment`, and without disk space, pixels are read, and one line
    says why.

    Args:
        cache_dir: its subfolder `caption_features` has one folder per backbone, preprocessing and precision,
            reused by every run that agrees in these.
        dtype: "bf16", "fp32", or "auto" for the precision of the run.
        views: views of each training image: the image and random crops of it; one is sampled per epoch.
        size_limit_gb: of all our caches in `cache_dir`; those not used for longest are removed to stay below,
            and a larger one is not built; None: no limit.

    Raises:
        UserError: an unknown dtype, or a number of views below 1.
    """

    def __init__(
        self,
        cache_dir: str,
        enabled: bool = True,
        dtype: str = "auto",
        views: int = 1,
        size_limit_gb: float | None = 100.0,
    ) -> None:
        if dtype not in ("auto", *DTYPES) or views < 1:
            raise UserError(
                f"callbacks.feature_cache dtype={dtype!r}, views={views}; expected auto, bf16 or fp32, and 1 or more; "
                "set callbacks.feature_cache.dtype=auto"
            )
        self.cache_dir, self.enabled = Path(cache_dir).expanduser(), enabled
        self.dtype, self.views, self.size_limit_gb = dtype, views, size_limit_gb

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compute the missing features of the splits that `stage` reads."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if stage not in SPLITS or not self._applies(data, pl_module):
            return
        assert isinstance(pl_module, VitGpt2)
        store = self._open(trainer, data, pl_module)
        store.read_shards()
        missing: list[View] = []
        for split in SPLITS[stage]:
            missing += store.add_images(data.splits[split], self.views if split == "train" else 1)
        trainer.strategy.barrier("feature_cache")  # all have read the same shards before one is written
        data.use_features(store if self._fill(trainer, data, pl_module, store, missing) else None)
        if data.features is not None:
            pl_module.captioner.page_out_backbone()

    def _applies(self, data: Any, module: LightningModule) -> bool:
        if not self.enabled or not isinstance(data, CaptionDataModule) or not isinstance(module, VitGpt2):
            return False
        if not module.captioner.depth or not data.cacheable:
            return False
        if data.augment:
            log.info(
                "datamodule.augment=true: no feature cache, pixels are read; callbacks.feature_cache.views=4 has both"
            )
        return not data.augment

    def _open(self, trainer: Trainer, data: CaptionDataModule, module: VitGpt2) -> ShardedFeatures:
        text = f"{module.backbone_fingerprint()}:{self._dtype(trainer)}"
        folder = self.cache_dir / SUBFOLDER / hashlib.sha256(text.encode()).hexdigest()[:24]
        if isinstance(data.features, ShardedFeatures) and data.features.folder == folder:
            return data.features
        return ShardedFeatures(folder, self.views, data.seed, _workers(trainer, data))

    def _dtype(self, trainer: Trainer) -> torch.dtype:
        if self.dtype == "auto":
            return torch.bfloat16 if str(trainer.precision).startswith("bf16") else torch.float32
        return DTYPES[self.dtype]

    def _fill(
        self,
        trainer: Trainer,
        data: CaptionDataModule,
        module: VitGpt2,
        store: ShardedFeatures,
        missing: list[View],
    ) -> bool:
        """Write the missing features; False, in all processes, where one of them has no disk space.

        All processes divide the images among them. On several nodes the processes of each node then divide what
        is still missing there, where the nodes share no disk.
        """
        slices = [(trainer.global_rank, trainer.world_size)]
        if trainer.num_nodes > 1:
            slices.append((trainer.local_rank, trainer.world_size // trainer.num_nodes))
        for rank_slice in slices:
            try:
                written = self._build(trainer, data, module, store, missing, rank_slice)
            except (OSError, SafetensorError) as error:
                reason = getattr(error, "strerror", None) or error
                log.warning("the feature cache cannot be written (%s); pixels are read instead", reason)
                written = False
            if not trainer.strategy.reduce_boolean_decision(written):
                return False
            store.read_shards()
            missing = store.missing(missing)
        return True

    def _build(
        self,
        trainer: Trainer,
        data: CaptionDataModule,
        module: VitGpt2,
        store: ShardedFeatures,
        missing: list[View],
        rank_slice: tuple[int, int],
    ) -> bool:
        """Write this rank's slice of the missing shards; False where there is no space for all.

        Raises:
            OSError, SafetensorError: the disk is full or cannot be written.
        """
        dtype, size = self._dtype(trainer), 0
        if missing:
            image = data.image_transform
            module.to(trainer.strategy.root_device)
            size = estimate_bytes(backbone_shape(module, image.height, image.width), dtype, len(missing))
            store.create()
        else:
            with suppress(OSError):  # a cache may be read-only
                os.utime(store.folder)
        has_space = self._has_space(store, size)
        if trainer.local_rank == 0 and self.size_limit_gb is not None:
            store.prune(self.size_limit_gb * 1e9 - (size if has_space else 0), keep_used=has_space)
        if not has_space or not missing:
            return has_space
        log.info("feature cache: %s images, %.2f GB in %s", f"{len(missing):,}", size / 1e9, store.folder)
        shards = [missing[start : start + SHARD_IMAGES] for start in range(0, len(missing), SHARD_IMAGES)]
        for shard in progress(shards[rank_slice[0] :: rank_slice[1]], trainer):
            keys, features = self._features(trainer, data, module, shard, dtype)
            if keys:
                store.write_shard(keys, features)
        return True

    def _has_space(self, store: ShardedFeatures, size: int) -> bool:
        total = size + store.used_bytes()
        if self.size_limit_gb is not None and total > self.size_limit_gb * 1e9:
            log.warning(
                "the feature cache needs %.2f GB, over size_limit_gb=%s: pixels are read instead",
                total / 1e9,
                self.size_limit_gb,
            )
            return False
        free = shutil.disk_usage(store.folder).free if size else 0
        if size > 0.95 * free:
            log.warning(
                "the feature cache needs %.2f GB and %s has %.2f free: pixels are read instead",
                size / 1e9,
                store.folder,
                free / 1e9,
            )
            return False
        return True

    @torch.no_grad()
    def _features(
        self,
        trainer: Trainer,
        data: CaptionDataModule,
        module: VitGpt2,
        shard: Sequence[View],
        dtype: torch.dtype,
    ) -> tuple[list[str], Tensor]:
        """Return keys and features (N,P,D), on the CPU, of the views of a shard that can be read."""
        keys: list[str] = []
        computed: list[Tensor] = []
        context = trainer.precision_plugin.forward_context if dtype != torch.float32 else nullcontext
        batches = [shard[start : start + data.batch_size] for start in range(0, len(shard), data.batch_size)]

        def load(batch: Sequence[View]) -> tuple[list[str], list[Tensor], dict[str, str]]:
            return load_views(batch, data)

        for batch_keys, pixels, unreadable in read_ahead(load, batches, _workers(trainer, data)):
            record_unreadable(unreadable, data.unreadable)
            if pixels:
                with context():
                    inputs = data.image_transform.normalize(pixels).to(module.device)
                    computed.append(module.captioner.backbone_features(inputs).to("cpu", dtype))
                keys += batch_keys
        return keys, torch.cat(computed) if computed else torch.empty(0)


def load_views(
    batch: Sequence[View], data: CaptionDataModule
) -> tuple[list[str], list[Tensor], dict[str, str]]:
    """Read views: their keys, pixels uint8 (3,height,width), and image_id -> reason of unreadable images.

    The key comes from the very bytes that are decoded.
    """
    keys, pixels, unreadable = [], [], {}
    for image, view in batch:
        try:
            content = read_image_bytes(image)
            crop = view_crop(data.seed, view, image)
            pixels.append(decode_resized(image, content, data.image_transform, crop))
            keys.append(feature_key(content_digest(content), image, view, data.seed))
        except UnreadableImage as error:
            unreadable[image.image_id] = str(error)
    return keys, pixels, unreadable


def _workers(trainer: Trainer, data: CaptionDataModule) -> int:
    return choose_workers(data.num_workers, True, trainer.world_size // max(trainer.num_nodes, 1))


@torch.no_grad()
def backbone_shape(module: VitGpt2, height: int, width: int) -> tuple[int, int]:
    """Return (P,D) of the backbone's output for an image of height x width pixels."""
    features = module.captioner.backbone_features(torch.zeros(1, 3, height, width, device=module.device))
    return features.shape[1], features.shape[2]


def progress(shards: Sequence[Any], trainer: Trainer) -> Iterable[Any]:
    """Iterate over the shards, with a progress bar where the trainer shows bars."""
    if not trainer.is_global_zero or trainer.progress_bar_callback is None:
        yield from shards
        return
    columns = (TextColumn("Feature cache"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        yield from bar.track(shards)
