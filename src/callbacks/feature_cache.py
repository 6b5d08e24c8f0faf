"""Cache the frozen backbone's output on disk, once per image; later epochs and runs start from there."""

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_dataset import decode_resized, seeded_rng
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.feature_store import SUBFOLDER, ShardedFeatures, View, content_digest, feature_key
from src.datamodule.images.decode import UnreadableImage, read_bytes
from src.datamodule.litdata import LitDataModule
from src.datamodule.loader import read_ahead, record_unreadable
from src.models.vit_gpt2 import VitGpt2
from src.utils.files import local_path
from src.utils.logging import get_logger

log = get_logger(__name__)
SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
SHARD_IMAGES = 64
HEADER_BYTES = 128  # of each image in a shard


class FeatureCache(Callback):
    """Let the data module serve cached features of the frozen backbone instead of pixels.

    Pixels are read without a frozen backbone, with `datamodule.augment`, and without disk space. `cache_dir` has
    a folder per backbone, preprocessing and precision, reused by every run that agrees in these.
    configs/callbacks/feature_cache.yaml describes the arguments.
    """

    def __init__(
        self,
        cache_dir: str,
        enabled: bool = True,
        dtype: Literal["auto", "bf16", "fp32"] = "auto",
        device: Literal["auto", "disk"] = "auto",
        views: int = 1,
        size_limit_gb: float | None = 100.0,
    ) -> None:
        self.cache_dir, self.enabled, self.dtype, self.views = Path(cache_dir).expanduser(), enabled, dtype, views
        self.device = device
        self.limit = float("inf") if size_limit_gb is None else size_limit_gb * 1e9

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compute the missing features of the splits that `stage` reads."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not self.enabled or stage not in SPLITS or not isinstance(data, CaptionDataModule):
            return
        if not isinstance(pl_module, VitGpt2) or not pl_module.captioner.depth:
            return
        if isinstance(data, LitDataModule):
            log.info("datamodule=litdata: streamed images are not cached; pixels are read")
            return
        if data.augment:
            log.info("datamodule.augment=true: pixels are read; callbacks.feature_cache.views=4 augments the cache")
            return
        is_bf16 = self.dtype == "bf16" or (self.dtype == "auto" and str(trainer.precision).startswith("bf16"))
        self.stored_dtype = torch.bfloat16 if is_bf16 else torch.float32
        text = f"{pl_module.captioner.backbone_fingerprint()}:{self.stored_dtype}:3"
        folder = self.cache_dir / SUBFOLDER / hashlib.sha256(text.encode()).hexdigest()[:24]
        store = data.features
        if store is None or store.folder != folder:
            store = ShardedFeatures(folder, self.views, data.seed, data.num_threads(pixels=True))
        store.read_shards()
        missing: list[View] = []
        for split in SPLITS[stage]:
            missing += store.add_images(images_read(trainer, data, split), self.views if split == "train" else 1)
        trainer.strategy.barrier("feature_cache")  # all have read the same shards before one is written
        data.features = store if self._fill(trainer, store, missing) else None
        if data.features is not None:
            pl_module.captioner.page_out_backbone()
            self._copy_to_device(store, trainer.strategy.root_device)

    def _copy_to_device(self, store: ShardedFeatures, device: torch.device) -> None:
        """Keep the features in the GPU's memory where they take less than half of what is free."""
        if self.device == "auto" and device.type == "cuda":
            size, (free, _) = sum(store.used_shards().values()), torch.cuda.mem_get_info(device)
            fits = size < 0.5 * free
            where = f"in the memory of {device}" if fits else f"read from disk ({free / 1e9:.2f} GB free on {device})"
            log.info("feature cache: %.2f GB, %s", size / 1e9, where)
            if fits:
                store.copy_to(device)

    def _fill(self, trainer: Trainer, store: ShardedFeatures, missing: list[View]) -> bool:
        """Write the missing features, divided among all processes; False in all where one has no disk space.

        On several nodes the processes of each then divide what is still missing there: nodes may share no disk.
        """
        slices = [(trainer.global_rank, trainer.world_size)]
        if trainer.num_nodes > 1:
            slices.append((trainer.local_rank, trainer.world_size // trainer.num_nodes))
        for rank, size in slices:
            try:
                written = self._make_space(trainer, store, len(missing))
                shards = [missing[at : at + SHARD_IMAGES] for at in range(0, len(missing), SHARD_IMAGES)]
                shards = shards[rank::size] if written else []
                quiet = not trainer.is_global_zero or trainer.progress_bar_callback is None
                for shard in tqdm(shards, "feature cache", leave=False, disable=quiet or not shards or None):
                    store.write_shard(self._features(trainer, shard))
            except OSError as error:
                reason = error.strerror or error
                log.warning("the feature cache cannot be written (%s); pixels are read instead", reason)
                written = False
            if not trainer.strategy.reduce_boolean_decision(written):
                return False
            store.read_shards()
            missing = store.missing(missing)
        return True

    @torch.no_grad()
    def _make_space(self, trainer: Trainer, store: ShardedFeatures, count: int) -> bool:
        """Remove older caches over the limit; return whether `count` features have space, else log why not."""
        size, free = 0, float("inf")
        if count:
            store.create()
            module: Any = trainer.lightning_module.to(trainer.strategy.root_device)
            image = module.processor.image
            blank = torch.zeros(1, 3, image.height, image.width, device=module.device)
            features = module.captioner.backbone_features(blank)
            size = count * (features.numel() * self.stored_dtype.itemsize + HEADER_BYTES)
            free = shutil.disk_usage(store.folder).free
        total, problem = size + sum(store.used_shards().values()), ""
        if total > self.limit:
            problem = f"over size_limit_gb={self.limit / 1e9:g}"
        elif size > 0.95 * free:
            problem = f"and {store.folder} has {free / 1e9:.2f} free"
        if problem:
            log.warning("the feature cache needs %.2f GB, %s: pixels are read instead", total / 1e9, problem)
        elif count and trainer.training:
            log.info("features %s images are cached, %.2f GB in %s", f"{count:,}", size / 1e9, local_path(store.folder))
        if trainer.local_rank == 0:
            store.prune(self.limit - (0 if problem else size), keep_used=not problem)
        return not problem

    @torch.no_grad()
    def _features(self, trainer: Trainer, shard: Sequence[View]) -> dict[str, Tensor]:
        """Return key -> features (P,D), on the CPU, of the views of a shard that can be read."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        module: Any = trainer.lightning_module

        def load(views: Sequence[View]) -> dict[str, Tensor]:
            """Read key -> pixels uint8 (3,height,width); the key comes from the very bytes that are decoded."""
            pixels = {}
            for image, view in views:
                try:
                    content = read_bytes(image.path, image.span)
                    key = feature_key(content_digest(content), image, view, data.seed)
                    crop = seeded_rng(data.seed, view, image.image_id, "view crop") if view else None
                    pixels[key] = decode_resized(image, content, data.processor.image, crop, data.max_megapixels)
                except UnreadableImage as error:
                    record_unreadable({image.image_id: str(error)}, data.unreadable)
            return pixels

        in_fp32 = self.stored_dtype == torch.float32
        batches = [shard[start : start + data.batch_size] for start in range(0, len(shard), data.batch_size)]
        features: dict[str, Tensor] = {}
        for pixels in read_ahead(load, batches, data.num_threads(pixels=True)):
            if pixels:
                with nullcontext() if in_fp32 else trainer.precision_plugin.forward_context():
                    inputs = data.processor.image.normalize(torch.stack([*pixels.values()]).to(module.device))
                    computed = module.captioner.backbone_features(inputs).to("cpu", self.stored_dtype)
                features |= zip(pixels, computed, strict=True)
        return features


def images_read(trainer: Trainer, data: CaptionDataModule, split: str) -> Sequence[CaptionedImage]:
    """Return the images of a split that the run reads: fewer where `limit_<split>_batches` cuts every epoch short."""
    images, limit = data.splits[split], getattr(trainer, f"limit_{split}_batches")
    loader = getattr(data, f"{split}_dataloader")()
    limit = limit if isinstance(limit, int) else int(limit * len(loader))
    epochs = (trainer.max_epochs or -1) if split == "train" else 1
    if limit >= len(loader) or epochs < 0 or trainer.world_size > 1 or not data.check_images:
        return images  # of unchecked images any may turn out unreadable, and any other takes its place
    batches = [batch for epoch in range(epochs) for batch in loader.order.batches(epoch)[:limit]]
    return [images[index] for index in sorted({index for batch in batches for index in batch})]
