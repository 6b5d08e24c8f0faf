"""Where the time of a training step goes, before and after: `python -m benchmarks.step_profile checkpoint=<folder>`.

    before   the cached backbone and packed captions through transformers' decoder and torch's cross-entropy
    after    this project's step

Both see the same batch of cached features in the precision of the run and have the same loss. The profiler's own
time is in the shares, not in `ms`, which is the median of steps without it.

    checkpoint=   a VisionEncoderDecoder folder
    data_dir=     images and captions in a Flickr layout
    images=16     per step, with all their captions
    steps=5       measured of each
    precision=auto   bf16 where the processor has it, else fp32; or either of them
"""

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import product
from benchmarks.common import FLICKR, print_report, quiet
from src.datamodule.collate import CaptionBatch
from src.models.kernels.memory import tune_malloc
from src.models.vit_gpt2 import VitGpt2
from src.utils.command import parse_command, run_command
from src.utils.hardware import has_native_bf16

DEFAULTS = {
    "checkpoint": None, "data_dir": str(FLICKR), "images": 16, "steps": 5, "precision": "auto",
}  # fmt: skip
VOCABULARY = "softmax over the vocabulary"
KINDS = {  # words in an operator's name, the first kind that fits
    VOCABULARY: ("log_softmax", "nll_loss", "exp_", "scatter_add", "gather", "amax"),
    "attention": ("bmm", "softmax", "scaled_dot_product", "masked_fill"),
    "matrix products": ("linear_pointwise", "aten::mm", "addmm", "aten::linear", "mkldnn_linear"),
    "copies and fills": ("copy_", "zero", "fill", "empty", "cat", "index", "clone", "expand", "reorder"),
    "norms and activations": ("norm", "gelu", "tanh", "pow"),
    "sums": ("add", "sum", "mul", "div", "sub"),
    "optimizer": ("adam", "foreach"),
}
OTHER = "other"


def kind_of(operator: str, shape: list[int]) -> str:
    """Which of `KINDS` an operator's time belongs to; shape: its first input's."""
    if "softmax" in operator and len(shape) == 2:  # attention's has the heads in front
        return VOCABULARY
    return next(
        (kind for kind, words in KINDS.items() if any(word in operator.lower() for word in words)), OTHER
    )


def make_step(module: VitGpt2, batch: CaptionBatch, bf16: bool) -> Callable[[], float]:
    """A step of AdamW on one batch; it returns the loss in nats per token."""
    weights = list(module.trained_weights().values())
    optimizer = torch.optim.AdamW(weights, lr=0.0, fused=True)  # the weights stay, so that losses compare

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            nats, tokens = module.sum_nll_and_num_tokens(batch)
        loss = nats / tokens
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def measure(step: Callable[[], float], steps: int) -> dict[str, Any]:
    """Median milliseconds, loss, and the share of each kind in the time of all operators."""
    loss = step()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        step()
    spent: Counter[str] = Counter()
    for event in recorded.key_averages(group_by_input_shape=True):
        spent[kind_of(event.key, (event.input_shapes or [[]])[0])] += event.self_cpu_time_total
    shares = {kind: spent[kind] / spent.total() for kind in (*KINDS, OTHER)}
    return {"ms": 1000 * statistics.median(seconds), "loss": loss, "shares": shares}


def cached_batch(settings: dict[str, Any]) -> tuple[VitGpt2, CaptionBatch]:
    """The model, dropout off, and the first images with their features in place of pixels."""
    config = product.compose_config(
        f"datamodule.data_dir={settings['data_dir']}", f"datamodule.batch_size={settings['images']}",
        f"model.checkpoint={settings['checkpoint']}",
    )  # fmt: skip
    datamodule, module = product.build(config)
    batch = product.first_batch(datamodule)
    bf16 = settings["precision"] == "bf16"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = module.captioner.backbone_features(batch.pixel_values)
    batch.features, batch.pixel_values = features.to(torch.bfloat16 if bf16 else torch.float32), None
    return module.eval(), batch


def main(arguments: list[str]) -> None:
    """Measure and print.

    Raises:
        UserError: an unknown argument or a checkpoint that is not there.
    """
    settings = parse_command(arguments, DEFAULTS)
    if settings["precision"] == "auto":
        settings["precision"] = "bf16" if has_native_bf16("cpu") else "fp32"
    with quiet():
        module, batch = cached_batch(settings)
        step = make_step(module, batch, settings["precision"] == "bf16")
        with patch("src.models.loss.is_plain_gpt2", return_value=False):
            before = measure(step, settings["steps"])
        tune_malloc()  # as the trainer does
        found = {"before": before, "after": measure(step, settings["steps"])}
    captions = product.count_captions(batch)
    rows = [
        [kind, *(f"{100 * one['shares'][kind]:.0f}%" for one in found.values())] for kind in (*KINDS, OTHER)
    ]
    rows += [
        ["ms", *(one["ms"] for one in found.values())],
        ["loss", *(one["loss"] for one in found.values())],
    ]
    rows += [["captions/s", *(1000 * captions / one["ms"] for one in found.values())]]
    title = f"A step of {settings['images']} images, {captions} captions, {settings['precision']}"
    print_report(title, ["", *found], rows, found)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
