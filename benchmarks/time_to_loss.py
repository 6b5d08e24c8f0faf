"""Measure the wall-clock time until the same validation loss: `python -m benchmarks.time_to_loss`.

Compared: transformers' Seq2SeqTrainer and this project with its feature cache, in fp32 and bf16.

Checkpoint, trained blocks, images, captions in a step, epochs, optimizer and schedule are the same. The Trainer gets
one row per caption, its image read with the row; `pixels kept` is its time without reading an image again. Counted:
from files to the step that reaches the target, building the feature cache included. Not counted: loading model and
captions, and the validation losses, which the same code computes for both. The target is the highest of all runs'
lowest losses, so that every run reaches it. Runs alternate, each repetition with its own seed; the median counts.
"""

import statistics
import tempfile
import time
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LambdaCallback
from torch import Tensor
from transformers import AutoImageProcessor, TrainerCallback

from benchmarks import baselines, common
from benchmarks.training import trainable_model
from src.callbacks.feature_cache import FeatureCache
from src.tasks.building import build_trainer

METHODS = ("seq2seq_trainer_fp32", "seq2seq_trainer_bf16", "ours_fp32", "ours_bf16")
WARMUP, WEIGHT_DECAY, CLIP = 0.05, 0.01, 1.0


# Validation loss in nats per token after a step, at so many seconds; repeated: of these, for reading again.
Point = namedtuple("Point", "step seconds loss repeated")


class Recorder:
    """Validates at every `every`-th step of a run, while its clock stands still."""

    def __init__(self, evaluator: "Comparison", every: int, last: int) -> None:
        self.evaluator, self.every, self.last = evaluator, every, last
        self.points: list[Point] = []
        self.start = time.perf_counter()

    def record(self, step: int, weights: Mapping[str, Tensor], repeated: float = 0.0) -> None:
        """Add a point if it is due."""
        if step % self.every == 0 or step == self.last:
            now = time.perf_counter()
            loss = self.evaluator.val_loss(weights)
            self.points.append(Point(step, now - self.start, loss, repeated))
            self.start += time.perf_counter() - now


class _RecordTheirs(TrainerCallback):
    def __init__(self, *record: Any) -> None:
        self.recorder, self.weights, self.rows = record

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.recorder.record(state.global_step, self.weights, self.rows.seconds_repeated())

    on_step_end = on_train_begin


class Comparison:
    """Runs of every method over one dataset and checkpoint."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        datamodule, self.module = common.build(self.config(seed=0))
        self.module.eval()
        with torch.no_grad():
            self.batches = [self._with_features(batch) for batch in datamodule.val_dataloader()]
        images, size = datamodule.splits["train"], options["batch_size"]
        self.steps = -(-len(images) // size) * options["epochs"]
        self.rows_per_step = round(sum(len(i.captions) for i in images) * options["epochs"] / self.steps)

    def _with_features(self, batch: Any) -> Any:
        features = self.module.captioner.backbone_features(batch.pixel_values)
        return replace(batch, features=features, pixels=None)

    def config(self, seed: int, kind: str = "fp32") -> Any:
        """Compose this project's config."""
        options = self.options
        return common.compose_config(
            *common.data_overrides(options["data_dir"]), f"datamodule.batch_size={options['batch_size']}",
            f"seed={seed}", f"model.checkpoint={options['checkpoint']}", f"model.optimizer.lr={options['lr']}",
            f"model.optimizer.weight_decay={WEIGHT_DECAY}", f"trainer.gradient_clip_val={CLIP}",
            f"trainer.max_epochs={options['epochs']}", f"trainer.precision={common.PRECISIONS[kind]}",
            f"model.lr_scheduler.scheduler.warmup={WARMUP}",
        )  # fmt: skip

    @torch.no_grad()
    def val_loss(self, weights: Mapping[str, Tensor]) -> float:
        """Return nats per token of the validation images under `weights`, in fp32."""
        own = self.module.trained_weights()
        assert own.keys() == weights.keys()
        for name, weight in own.items():
            weight.copy_(weights[name])
        with torch.autocast("cpu", enabled=False):
            sums = [self.module.captioner(batch) for batch in self.batches]
        return float(sum(nll for nll, _ in sums) / sum(tokens for _, tokens in sums))

    def run(self, method: str, seed: int) -> list[Point]:
        """Train from the checkpoint to the last epoch's end."""
        recorder = Recorder(self, max(1, self.steps // self.options["points"]), self.steps)
        config = self.config(seed, method.rpartition("_")[2])
        pl.seed_everything(seed, verbose=False)
        datamodule, module = common.build(config)
        if method.startswith("ours"):
            trainer = build_trainer(config)

            def record(trainer: pl.Trainer, module: Any, *rest: Any) -> None:
                recorder.record(trainer.global_step, module.trained_weights())

            with tempfile.TemporaryDirectory(prefix="benchmark-") as cache:
                callbacks = [FeatureCache(cache), LambdaCallback(on_train_start=record, on_train_batch_end=record)]
                trainer.callbacks.extend(callbacks)
                recorder.start = time.perf_counter()
                trainer.fit(module, datamodule=datamodule)
            return recorder.points
        model, options = trainable_model(self.options["checkpoint"]), self.options
        weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        image_processor = AutoImageProcessor.from_pretrained(options["checkpoint"])
        rows = baselines.LazyRows(datamodule.splits["train"], image_processor, module.processor)
        trainer = baselines.SilentTrainer(
            model, rows, [_RecordTheirs(recorder, weights, rows)], per_device_train_batch_size=self.rows_per_step,
            num_train_epochs=options["epochs"], learning_rate=options["lr"], lr_scheduler_type="linear",
            warmup_steps=round(WARMUP * self.steps), weight_decay=WEIGHT_DECAY, max_grad_norm=CLIP,
            bf16=method.endswith("bf16"), seed=seed,
        )  # fmt: skip
        recorder.start = time.perf_counter()
        trainer.train()
        return recorder.points


def main() -> None:
    parser = common.make_parser(__doc__, METHODS)
    parser.add_argument("--batch-size", type=int, default=16, help="images in a step; the Trainer's in captions")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--points", type=int, default=25, help="validation losses of a run")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--repetitions", type=int, default=3)
    options = vars(parser.parse_args())
    methods = options["only"]
    sides = {side: common.Isolated(Comparison, options) for side in {method[:4] for method in methods}}
    runs: dict[str, list[list[Point]]] = {method: [] for method in methods}
    for seed in range(options["repetitions"]):
        for method in methods:
            runs[method].append(sides[method[:4]].call("run", method, seed))
    target = max(min(point.loss for point in run) for tries in runs.values() for run in tries)
    rows = []
    for method, tries in runs.items():
        hits = [next(point for point in run if point.loss <= target) for run in tries]
        columns = [[hit.seconds for hit in hits], [hit.seconds - hit.repeated for hit in hits]]
        columns += [[hit.step for hit in hits], [run[0].seconds for run in tries]]
        rows.append([method, *map(statistics.median, columns)])
    header = ["method", "seconds", "pixels kept", "steps", "before step 1"]
    result = {name: dict(zip(header[1:], values, strict=True)) for name, *values in rows}
    common.report(f"Time to a validation loss of {target:.4f} nats/token", header, rows, result | {"target": target})


if __name__ == "__main__":
    main()
