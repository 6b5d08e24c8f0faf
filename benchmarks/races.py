"""A whole training run with this project, and with transformers' Seq2SeqTrainer, its validation loss watched.

B images, P patches + class token, D width.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from transformers import AutoImageProcessor, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

from benchmarks import baselines, product
from src.callbacks.feature_cache import FeatureCache
from src.datamodule.collate import CaptionBatch
from src.models.freezing import choose_trainable
from src.models.pretrained import load_captioner
from src.models.vit_gpt2 import VitGpt2
from src.tasks.building import build_trainer

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
WAYS = ("seq2seq_trainer_fp32", "seq2seq_trainer_bf16", "ours_fp32", "ours_bf16")
WARMUP, WEIGHT_DECAY, CLIP = 0.05, 0.01, 1.0


class Stopwatch:
    """Seconds since it was made, without what was done in `paused`."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Until now."""
        return time.perf_counter() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count."""
        began = time.perf_counter()
        yield
        self._start += time.perf_counter() - began


@dataclass(frozen=True)
class Point:
    """Validation loss in nats per token behind an optimizer step, and the clock then.

    seconds: in all. pictures: of these, what reading and preparing pictures again after the first time took.
    """

    step: int
    seconds: float
    loss: float
    pictures: float = 0.0


class Judge:
    """The validation loss of any trained weights, by this project's code in fp32 behind fp32 features."""

    def __init__(self, module: VitGpt2, batches: list[CaptionBatch]) -> None:
        self.module = module.eval()
        self.batches = [
            replace(batch, features=module.captioner.backbone_features(batch.pixel_values), pixel_values=None)
            for batch in batches
            if batch.pixel_values is not None
        ]

    @torch.no_grad()
    def loss(self, weights: Mapping[str, Tensor]) -> float:
        """Nats per token of the val part under `weights`, by module name, which must be all that train."""
        own = self.module.trained_weights()
        if own.keys() != weights.keys():
            raise ValueError(
                f"{len(weights)} weights trained; the judge expects {len(own)} of the same names"
            )
        for name, weight in own.items():
            weight.copy_(weights[name])
        with torch.autocast("cpu", enabled=False):  # also where it is called from within bf16
            sums = [self.module.sum_nll_and_num_tokens(batch) for batch in self.batches]
        return float(sum(nats for nats, _ in sums) / sum(tokens for _, tokens in sums))


class Watch:
    """Points of a run: before the first step, at every `every`-th step and at the last."""

    def __init__(self, judge: Judge, every: int) -> None:
        self.judge, self.every = judge, every
        self.clock = Stopwatch()
        self.points: list[Point] = []

    def look(
        self, step: int, weights: Mapping[str, Tensor], last: bool = False, pictures: float = 0.0
    ) -> None:
        """Note the loss if it is time to; the clock stands still meanwhile."""
        if step % self.every and not last:
            return
        seconds = self.clock.seconds
        with self.clock.paused():
            self.points.append(Point(step, seconds, self.judge.loss(weights), pictures))


class _WatchOurs(pl.Callback):
    def __init__(self, watch: Watch, total: int) -> None:
        self.watch, self.total = watch, total
        self.weights: Mapping[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.weights = module.trained_weights()
        self.watch.look(0, self.weights)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *rest: Any) -> None:
        step = trainer.global_step
        self.watch.look(step, self.weights, last=step == self.total)


class _WatchTheirs(TrainerCallback):
    def __init__(self, watch: Watch, weights: Mapping[str, Tensor], rows: baselines.ReadRows) -> None:
        self.watch, self.weights, self.rows = watch, weights, rows

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watch.look(0, self.weights)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        last = step == state.max_steps
        self.watch.look(step, self.weights, last, self.rows.seconds_again)


class Race:
    """One data set and checkpoint, over which every way may run. What it writes goes into `folder`."""

    def __init__(self, settings: Mapping[str, Any], data: str, folder: str) -> None:
        self.settings, self.data, self.folder = settings, data, folder
        Path(folder).mkdir(parents=True, exist_ok=True)
        datamodule, module = product.build(self.config(seed=0))
        self.judge = Judge(module, list(datamodule.val_dataloader()))
        self.captions = sum(len(image.captions) for image in datamodule.splits["train"])
        self.steps = -(-len(datamodule.splits["train"]) // settings["batch_size"]) * settings["epochs"]

    def config(self, seed: int, kind: str = "fp32") -> Any:
        """The project's config for this data set."""
        settings = self.settings
        if self.data == "drawn":
            words = ["datamodule=synthetic_flickr", f"datamodule.num_images={settings['drawn_images']}"]
            words += ["datamodule.image_size=128", f"datamodule.data_dir={self.folder}/drawn"]
        else:
            words = ["datamodule=flickr", f"datamodule.data_dir={settings['data_dir']}"]
        return product.compose_config(
            *words, f"datamodule.batch_size={settings['batch_size']}", f"seed={seed}",
            f"model.checkpoint={settings['checkpoint']}", f"model.optimizer.lr={settings['lr']}",
            f"model.optimizer.weight_decay={WEIGHT_DECAY}", f"trainer.gradient_clip_val={CLIP}",
            f"trainer.max_epochs={settings['epochs']}", f"trainer.precision={PRECISIONS[kind]}",
            f"model.lr_scheduler.scheduler.warmup={WARMUP}",
        )  # fmt: skip

    def run(self, way: str, seed: int) -> list[Point]:
        """Train from the checkpoint to the last epoch's end."""
        every = max(1, self.steps // self.settings["measurements"])
        race = self._ours if way.startswith("ours") else self._theirs
        return race(way.rpartition("_")[2], seed, every)

    def _ours(self, kind: str, seed: int, every: int) -> list[Point]:
        config = self.config(seed, kind)
        pl.seed_everything(seed, verbose=False)
        datamodule, module = product.build(config)
        trainer = build_trainer(config)
        with tempfile.TemporaryDirectory(dir=self.folder) as cache:
            watch = Watch(self.judge, every)
            trainer.callbacks.extend([FeatureCache(cache), _WatchOurs(watch, self.steps)])
            trainer.fit(module, datamodule=datamodule)
        return watch.points

    def _theirs(self, kind: str, seed: int, every: int) -> list[Point]:
        settings = self.settings
        datamodule, _ = product.build(self.config(seed))
        captioner = load_captioner(settings["checkpoint"])
        model, words = captioner.model, captioner.processor
        choose_trainable(model, "last_blocks", 1)
        weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        rows_per_step = round(self.captions / (self.steps / settings["epochs"]))
        arguments = Seq2SeqTrainingArguments(
            output_dir=str(Path(self.folder) / "trainer"), per_device_train_batch_size=rows_per_step,
            num_train_epochs=settings["epochs"], learning_rate=settings["lr"], lr_scheduler_type="linear",
            warmup_steps=round(WARMUP * self.steps), weight_decay=WEIGHT_DECAY, max_grad_norm=CLIP,
            bf16=kind == "bf16", seed=seed, use_cpu=True, save_strategy="no", logging_strategy="no",
            report_to=[], disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        watch = Watch(self.judge, every)
        processor = AutoImageProcessor.from_pretrained(settings["checkpoint"])
        rows = baselines.ReadRows(datamodule.splits["train"], processor, words)
        trainer = Seq2SeqTrainer(
            model, arguments, data_collator=baselines.collate_rows, train_dataset=rows,
            callbacks=[_WatchTheirs(watch, weights, rows)],
        )  # fmt: skip
        trainer.log = lambda logs, *_, **__: None  # nothing on the screen
        trainer.train()
        return watch.points
