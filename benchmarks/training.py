"""Captions per second of a training step, side by side: `python -m benchmarks.training checkpoint=<folder>`.

Compared on the same images, captions and starting weights, with the same blocks trained:

    published_loop     one row per caption, pixels through the model, captions searched for in every step
    seq2seq_trainer_*  transformers' Seq2SeqTrainer, one row per caption, padded dynamically, fp32 and bf16
    ours_*_pixels      this project from pixels, fp32 and bf16
    ours_*             this project with the feature cache, fp32 and bf16

Every round runs each of them once, one after the other, ours in one process and the others in a second one; the
median of the rounds counts. Ours reads its pictures or its cache from disk while it trains; the others have their
pixels in memory. bf16 is left out where the processor has no such products. The losses are those of the first images
under the starting weights, without dropout.

    checkpoint=   a VisionEncoderDecoder folder
    data_dir=     images and captions in a Flickr layout
    images=16     per step, with all their captions
    steps=4       measured per round, of ours; the slower ones make one step per round
    rounds=3
    published=16  captions per step of the published loop
    equal_steps=0 also compare the losses of that many steps, without dropout
    memory=1      peak memory of each way, in a process of its own
    only=         one or several of the ways, by comma
"""

import json
import subprocess
import sys
from collections import defaultdict
from typing import Any

import torch

from benchmarks import baselines, product
from benchmarks.apart import Apart
from benchmarks.common import (
    FLICKR,
    chosen,
    count_operations,
    machine_peak,
    medians,
    peak_memory,
    print_report,
    quiet,
)
from src.models.freezing import choose_trainable
from src.models.pretrained import load_captioner
from src.utils.command import parse_command, run_command

DEFAULTS = {
    "checkpoint": None, "data_dir": str(FLICKR), "images": 16, "steps": 4, "rounds": 3, "published": 16,
    "equal_steps": 0, "memory": 1, "only": "",
}  # fmt: skip
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
OURS = tuple(f"ours_{kind}{pixels}" for kind in DTYPES for pixels in ("", "_pixels"))
THEIRS = tuple(f"seq2seq_trainer_{kind}" for kind in DTYPES)
WAYS = ("published_loop", *THEIRS, *OURS)


class Contest:
    """Every way to train, over the same images and starting weights."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.checkpoint, count = settings["checkpoint"], settings["images"]
        self.config = product.compose_config(
            f"datamodule.data_dir={settings['data_dir']}", f"datamodule.num_samples={count * 50}",
            f"datamodule.batch_size={count}", f"model.checkpoint={self.checkpoint}",
            *settings.get("overrides", ()),
        )  # fmt: skip
        self.datamodule, self.ours = product.build(self.config)
        self.images = list(self.datamodule.splits["train"])
        self.rows = baselines.caption_rows(self.images[:count], self.ours.processor)
        self.theirs: Any = None
        self.losses: dict[str, float] = {}
        self.operations: dict[str, float] = {}

    def run(self, way: str) -> float:
        """Captions per second of one round."""
        if way in OURS:
            clock = self.fit(way, self.settings["steps"])
            if way not in self.losses:
                with self.ours.captioner.base_weights():
                    self.losses[way] = self.start_loss(way)
                self.operations[way] = self.operations_per_caption(way)  # from what this way reads
            return clock.captions_per_second()
        if self.theirs is None:
            self.theirs = load_captioner(self.checkpoint).model
            choose_trainable(self.theirs, "last_blocks", 1)
            for other in (name for name in self.settings["ways"] if name not in OURS):
                self.losses[other] = baselines.start_loss(self.theirs, self.rows, other.endswith("bf16"))
        if way == "published_loop":
            size = min(self.settings["published"], len(self.rows))
            words = self.ours.processor
            return baselines.train_published(self.theirs, self.rows, words, size, 1)[0]
        return baselines.train_seq2seq(self.theirs, self.rows, len(self.rows), 1, way.endswith("bf16"))[0]

    def peak_memory(self) -> float:
        """Most resident memory that this process has had, in GB."""
        return peak_memory()

    def fit(self, way: str, steps: int) -> product.StepClock:
        """Make steps with this project's model."""
        _, kind, *pixels = way.split("_")
        self.datamodule.features = None
        callbacks = [] if pixels else product.feature_cache(self.config)
        parts = self.datamodule, self.ours
        return product.train_steps(self.config, parts, steps, PRECISIONS[kind], callbacks)

    def start_loss(self, way: str) -> float:
        """Nats per token of the first images in this project's way, without dropout."""
        batch = product.first_batch(self.datamodule)
        self.ours.eval()
        with torch.no_grad(), _autocast(way):
            nats, tokens = self.ours.sum_nll_and_num_tokens(batch)
        return float(nats / tokens)

    def operations_per_caption(self, way: str) -> float:
        """Floating-point operations of a step's matrix products, as done: what is merged is not counted."""
        batch = product.first_batch(self.datamodule)
        self.ours.train()

        def step() -> None:
            with _autocast(way):
                nats, _ = self.ours.sum_nll_and_num_tokens(batch)
            nats.backward()

        return count_operations(step) / product.count_captions(batch)


def _autocast(way: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled="bf16" in way)


def measure(settings: dict[str, Any], ways: list[str]) -> dict[str, Any]:
    """Run the rounds; returns what the last line holds."""
    kinds = {kind: dtype for kind, dtype in DTYPES.items() if any(kind in way for way in ways)}
    peaks = {kind: machine_peak(dtype) for kind, dtype in kinds.items()}
    sides = {side: Apart(Contest, settings) for side in dict.fromkeys(way in OURS for way in ways)}
    rounds: dict[str, list[float]] = defaultdict(list)
    for turn in range(settings["rounds"]):
        for way in ways:
            rounds[way].append(sides[way in OURS].call("run", way))
            print(f"round {turn + 1}  {way}: {rounds[way][-1]:.2f} captions/s", file=sys.stderr, flush=True)
        peaks = {kind: max(peak, machine_peak(kinds[kind])) for kind, peak in peaks.items()}
    memory = max(side.call("peak_memory") for side in sides.values())
    losses, operations = (
        {way: value for side in sides.values() for way, value in side.call(name).items()}
        for name in ("losses", "operations")
    )
    for side in sides.values():
        side.close()
    speed, shares = medians(rounds), {}
    for way in (way for way in ways if way in OURS):
        peak = 1e9 * peaks[way.split("_")[1]]
        shares[way] = speed[way] * operations[way] / peak
    return {
        "captions_per_second": speed,
        "loss": {way: losses[way] for way in ways},
        "ratio": ratios(speed),
        "peak_gflops": peaks,
        "share_of_peak": shares,
        "peak_memory_gb": {ways[0]: memory} if len(ways) == 1 else {},
    }


def ratios(speed: dict[str, float]) -> dict[str, float]:
    """Ours at its best over each of the others, and both in fp32."""
    best = max((speed[way] for way in OURS if way in speed), default=0.0)
    found = {way: best / speed[way] for way in WAYS if way in speed and way not in OURS}
    if "seq2seq_trainer_fp32" in speed and "ours_fp32" in speed:
        found["fp32_over_fp32"] = speed["ours_fp32"] / speed["seq2seq_trainer_fp32"]
    return found


def memory_of_each(words: list[str], ways: list[str]) -> dict[str, float]:
    """Peak memory in GB of each way, alone in a process that makes one round."""
    found = {}
    for way in ways:
        command = [sys.executable, "-m", "benchmarks.training", *words]
        command += [f"only={way}", "rounds=1", "memory=0", "equal_steps=0"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found |= json.loads(output.splitlines()[-1])["peak_memory_gb"]
    return found


def equal_losses(settings: dict[str, Any], ways: list[str]) -> dict[str, float]:
    """Train ours for some steps on the same batches without dropout; the largest differences in loss.

    Relative to the loss of `Seq2SeqTrainer` in fp32, whose batches follow ours.
    """
    steps, losses = settings["equal_steps"], {}
    plain = {"model.lr_scheduler": "null", "model.optimizer.weight_decay": "0.0"}
    for way in [way for way in ("ours_fp32", "ours_bf16") if way in ways] or ["ours_fp32"]:
        contest = Contest(settings | {"overrides": [f"{key}={value}" for key, value in plain.items()]})
        without_dropout(contest.ours.model)
        clock = contest.fit(way, steps)
        losses[way] = clock.losses[:steps]
    images = {image.image_id: image for image in contest.images}
    order = [images[name] for names in clock.image_ids[:steps] for name in names]
    theirs = load_captioner(contest.checkpoint).model
    choose_trainable(theirs, "last_blocks", 1)
    without_dropout(theirs)
    rows = baselines.caption_rows(order, contest.ours.processor)
    sizes = clock.captions[:steps]
    expected = baselines.train_in_order(theirs, rows, sizes)
    return {
        way: max(abs(a - b) / b for a, b in zip(found, expected, strict=True))
        for way, found in losses.items()
    }


def without_dropout(model: torch.nn.Module) -> None:
    """Set every dropout rate to 0."""
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0


def main(arguments: list[str]) -> None:
    """Measure and print.

    Raises:
        UserError: an unknown argument or way.
    """
    settings = parse_command(arguments, DEFAULTS)
    ways = settings["ways"] = chosen("only", settings["only"], WAYS)
    with quiet():
        result = measure(settings, ways)
        if settings["equal_steps"]:
            result["largest_loss_difference"] = equal_losses(settings, ways)
    if settings["memory"]:
        result["peak_memory_gb"] = memory_of_each(arguments, ways)
    columns = [result[key] for key in ("captions_per_second", "loss", "share_of_peak", "peak_memory_gb")]
    rows = [[way, *(column.get(way) for column in columns)] for way in ways]
    header = ["way", "captions/s", "nats/token", "share of peak", "peak GB"]
    print_report(f"Training, {settings['images']} images a step", header, rows, result)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
