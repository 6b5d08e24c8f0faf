"""Captions per second of beam search, side by side: `python -m benchmarks.generation checkpoint=<folder>`.

From pixels to captions for the same images, with the same weights:

    generate_fp32          `model.generate(pixel_values)`, as a user would call it
    generate_bf16          the same, the model cast to bf16
    generate_bf16_autocast the same under autocast, the model in fp32
    ours_fp32, ours_bf16   this project's encoder and search

Every round runs each of them once, one after the other; the median of the rounds counts. `same_tokens` says
whether ours in fp32 gives the tokens of `generate_fp32`; a round of random weights seldom ends early, so
max_length decides how much there is to do.

    checkpoint=  a VisionEncoderDecoder folder
    data_dir=    images in a Flickr layout
    images=16    in one batch
    beams=4
    max_length=16
    rounds=3
"""

import copy
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import FLICKR, chosen, medians, print_report, quiet
from src.datamodule.flickr import FlickrDataModule
from src.datamodule.images.decode import load_image
from src.models.generation import generate_ids
from src.models.vit_gpt2 import VitGpt2
from src.utils.command import parse_command, run_command

DEFAULTS = {
    "checkpoint": None, "data_dir": str(FLICKR), "images": 16, "beams": 4, "max_length": 16, "rounds": 3,
}  # fmt: skip
THEIRS = ("generate_fp32", "generate_bf16", "generate_bf16_autocast")


def ways(module: VitGpt2, pixels: Tensor, settings: dict[str, Any]) -> dict[str, Callable[[], Tensor]]:
    """Name -> what turns the pixels (B,3,H,W) into token ids (B, <= max_length)."""
    model, words = module.model, module.processor
    rough = copy.deepcopy(model).to(torch.bfloat16)
    length, beams = settings["max_length"], settings["beams"]

    def theirs(which: Any, values: Tensor) -> Tensor:
        return which.generate(
            values, max_length=length, num_beams=beams, do_sample=False,
            decoder_start_token_id=words.start_id,
            eos_token_id=words.eos_id, pad_token_id=words.pad_id,
        )  # fmt: skip

    def ours() -> Tensor:
        with torch.no_grad():
            states = module.model.encoder(pixels).last_hidden_state
            return generate_ids(model, words, states, length, beams)

    def in_bf16(way: Callable[[], Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return way()

    return {
        "generate_fp32": lambda: theirs(model, pixels),
        "generate_bf16": lambda: theirs(rough, pixels.bfloat16()),
        "generate_bf16_autocast": lambda: in_bf16(lambda: theirs(model, pixels)),
        "ours_fp32": ours,
        "ours_bf16": lambda: in_bf16(ours),
    }


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Run the rounds; returns what the last line holds."""
    datamodule = FlickrDataModule(settings["data_dir"])
    datamodule.setup()
    module = VitGpt2(settings["checkpoint"])
    module.eval()
    transform = module.processor.image
    images = islice(datamodule.splits["test"], settings["images"])
    pixels = torch.stack([transform(load_image(image.path)) for image in images])
    every = ways(module, pixels, settings)
    every = {name: every[name] for name in chosen("ways", "", list(every))}
    speeds, ids = defaultdict(list), {}
    for turn in range(settings["rounds"] + 1):
        for name, way in every.items():
            start = time.perf_counter()
            ids[name] = way()
            if turn:  # the first warms up
                speeds[name].append(len(pixels) / (time.perf_counter() - start))
                print(f"round {turn}  {name}: {speeds[name][-1]:.2f} captions/s", file=sys.stderr, flush=True)
    speed = medians(speeds)
    return {
        "captions_per_second": speed,
        "ratio": ratios(speed),
        "same_tokens": torch.equal(ids["ours_fp32"], ids["generate_fp32"]),
        "tokens": int(ids["ours_fp32"].shape[1]),
    }


def ratios(speed: dict[str, float]) -> dict[str, float]:
    """Ours over `generate()`: as a user calls it, which is in fp32, and at equal precision, where measured."""
    ours = {name: value for name, value in speed.items() if name.startswith("ours")}
    found = {
        "as_called": max(ours.values()) / speed["generate_fp32"],
        "fp32": speed["ours_fp32"] / speed["generate_fp32"],
    }
    in_bf16 = [value for name, value in speed.items() if name.startswith("generate_bf16")]
    if in_bf16 and "ours_bf16" in speed:
        found["bf16"] = speed["ours_bf16"] / max(in_bf16)
    return found


def main(arguments: list[str]) -> None:
    """Measure and print."""
    settings = parse_command(arguments, DEFAULTS)
    with quiet():
        result = measure(settings)
    speed = result["captions_per_second"]
    rows = [[name, value, value / speed["generate_fp32"]] for name, value in speed.items()]
    title = f"Generation, {settings['beams']} beams, up to {settings['max_length']} tokens"
    print_report(title, ["way", "captions/s", "over generate_fp32"], rows, result)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
