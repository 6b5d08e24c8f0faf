"""What a caption costs as data, processes and captions per image grow: `python -m benchmarks.scaling`.

Measured, with the backbone's features served as from the cache:

    pairs       seconds of a training step per caption, for data sets of 100 to 10,000 image-caption pairs, and
                the seconds to read, check, split and tokenize them
    captions    the same for K = 1 to 5 captions of each image
    processes   captions per second of one process and of two, at the same number of images in a step
    once        the feature cache per image; a step per caption of the loop as it was published, which searches
                for its captions with 4 beams in every step

A step runs from one batch's start to the next one's; the median of the steps counts. The features are those of
some 60 images, repeated: their number changes neither what is read nor what is computed.

Projected, every pair counted as trained on, validation and the scoring of test images left out:

    ours       setup/pair x pairs + cache/image x images + epochs x images x (a + b x tokens of an image)
               with a and b the line through seconds and tokens of an image at K = 1 to 5
    published  epochs x pairs x its seconds per caption, also where captions are longer
    disk       ours: cache bytes/image x images + 2 checkpoints of (4 + 8) bytes x trained weights
               published: 2 checkpoints of 4 bytes x all + 8 bytes x trained weights

    checkpoint=  a VisionEncoderDecoder folder; the shipped tiny model
    pairs=100,300,1000,3000,10000
    images=16    in a step
    steps=10     measured of each
    epochs=5     of the projections
    published=16 captions in a step of the published loop
    medicat_tokens=0  tokens of a MedICaT caption; 0 takes the mean of the sample in medicat_dir
    medicat_dir= MedICaT's own sample
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.common import SHARED, print_report, print_table, quiet
from benchmarks.product import ROOT
from src.utils.command import parse_command, run_command
from src.utils.errors import UserError

DEFAULTS = {
    "checkpoint": str(ROOT / "src" / "demo" / "vit_gpt2_tiny"), "pairs": "100,300,1000,3000,10000",
    "images": 16, "steps": 10, "epochs": 5, "published": 16, "medicat_tokens": 0.0,
    "medicat_dir": str(SHARED / "data" / "medicat"),
}  # fmt: skip
# Images and captions of each.
RUNS = {"the original's run": (2_000, 5), "Flickr30k": (31_783, 5), "MedICaT": (217_060, 1)}


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes of one thing each; seconds of a step per image are `image` + `token` x its tokens."""

    setup_pair: float
    backbone_image: float
    image: float
    token: float
    published_caption: float
    feature_bytes: int
    all_weights: int
    trained_weights: int


def line(tokens: Sequence[float], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Least squares of seconds of an image over its tokens: intercept, slope, largest relative residual."""
    slope, start = np.polyfit(tokens, seconds, 1)
    fitted = start + slope * np.asarray(tokens)
    return float(start), float(slope), float(np.max(np.abs(fitted / np.asarray(seconds) - 1)))


def project(rates: Rates, images: int, captions: int, tokens: float, epochs: int) -> dict[str, float]:
    """Hours and GB of a run over `images` with `captions` of `tokens` each."""
    pairs = images * captions
    cache = rates.backbone_image * images
    steps = epochs * images * (rates.image + rates.token * captions * tokens)
    published = 4 * rates.all_weights + 8 * rates.trained_weights
    return {
        "cache_hours": cache / 3600,
        "hours": (rates.setup_pair * pairs + cache + steps) / 3600,
        "published_hours": epochs * pairs * rates.published_caption / 3600,
        "disk_gb": (rates.feature_bytes * images + 2 * 12 * rates.trained_weights) / 1e9,
        "published_disk_gb": 2 * published / 1e9,
    }


def projections(
    rates: Rates, tokens: float, medicat_tokens: float, epochs: int
) -> dict[str, dict[str, float]]:
    """Every run of `RUNS`; `tokens` of a caption of scenes or photographs."""
    return {
        name: project(rates, images, captions, medicat_tokens if name == "MedICaT" else tokens, epochs)
        for name, (images, captions) in RUNS.items()
    }


def measure(settings: dict[str, Any], pairs: Sequence[int]) -> dict[str, Any]:
    """All measurements; returns what the last line holds."""
    from benchmarks.scaling_runs import Workshop, captions_per_second

    with Workshop(settings, max(pairs)) as workshop:
        once = workshop.once()
        sizes = {number: workshop.by_pairs(number) for number in pairs}
        captions = {number: workshop.by_captions(number) for number in range(1, 6)}
        medicat_tokens = settings["medicat_tokens"] or workshop.medicat_tokens()
        processes = {number: captions_per_second(settings, workshop.data_dir, number) for number in (1, 2)}
    start, slope, residual = line(
        [found["tokens"] for found in captions.values()], [found["seconds"] for found in captions.values()]
    )
    largest = sizes[max(pairs)]
    rates = Rates(largest["setup_seconds"] / max(pairs), image=start, token=slope, **once)
    tokens = captions[5]["tokens"] / 5
    return {
        "seconds_per_caption": {
            "pairs": {number: found["seconds_per_caption"] for number, found in sizes.items()},
            "captions_per_image": {number: found["seconds"] / number for number, found in captions.items()},
        },
        "setup_seconds": {number: found["setup_seconds"] for number, found in sizes.items()},
        "captions_per_second": {"processes": processes},
        "rates": asdict(rates),
        "largest_residual": residual,
        "tokens_per_caption": {"drawn": tokens, "medicat": medicat_tokens},
        "projection": projections(rates, tokens, medicat_tokens, settings["epochs"]),
    }


def report(result: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Print the tables and the last line."""
    cost, setup = result["seconds_per_caption"], result["setup_seconds"]
    rows = [[f"{number:,}", 1000 * value, setup[number]] for number, value in cost["pairs"].items()]
    print_table("By the size of the data, K = 5", ["pairs", "ms a caption", "setup s"], rows)
    rows = [
        [number, 1000 * value, 1000 * value * number] for number, value in cost["captions_per_image"].items()
    ]
    print_table("By captions of an image", ["K", "ms a caption", "ms an image"], rows)
    rows = [[number, value] for number, value in result["captions_per_second"]["processes"].items()]
    print_table(f"{settings['images']} images a step in all", ["processes", "captions/s"], rows)
    rows = [[name, value] for name, value in result["rates"].items()]
    print_table(f"Rates (line within {result['largest_residual']:.0%})", ["seconds or bytes", ""], rows)
    rows = [[name, *found.values()] for name, found in result["projection"].items()]
    header = ["run", "cache h", "ours h", "published h", "ours GB", "published GB"]
    print_report(f"Projected, {settings['epochs']} epochs", header, rows, result)


def numbers(text: str) -> list[int]:
    """The pairs to measure.

    Raises:
        UserError: not whole numbers from 100 on.
    """
    words = [word for word in text.split(",") if word]
    if not words or not all(word.isdigit() and int(word) >= 100 for word in words):
        raise UserError(f"pairs={text}; expected whole numbers from 100 on; set pairs={DEFAULTS['pairs']}")
    return [int(word) for word in words]


def main(arguments: list[str]) -> None:
    """Measure and print.

    Raises:
        UserError: an unknown argument, or pairs that are no numbers.
    """
    settings = parse_command(arguments, DEFAULTS)
    pairs = numbers(settings["pairs"])
    with quiet():
        result = measure(settings, pairs)
    report(result, settings)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
