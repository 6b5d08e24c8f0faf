"""Photographs to encoder input, side by side with the image processor: `python -m benchmarks.image_loading`.

Each round goes over the same photographs in every way, one way after the other, the processor in a process of its
own, and the median of the rounds counts. Once as they are, once enlarged to 500 pixels, about the size of Flickr's
own, where decoding, which costs every way the same, is most of the work. Pixels are compared with the processor's
before timing.
Prints a table, then one line of JSON; `ratio` is the loader over the processor called image by image.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import ViTImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from benchmarks.apart import Apart
from src.datamodule.caption_dataset import CaptionDataset
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import load_image
from src.datamodule.loader import CaptionLoader, choose_workers
from src.datamodule.processor import ImageTransform, Processor
from src.datamodule.sampler import LengthGroupedSampler
from src.models.kernels.memory import tune_malloc

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "flickr8k" / "Images"
SETTINGS: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # the published checkpoint's
BATCH = 16
TOLERANCE = 2 / 255
BASELINE, OURS = "processor", "loader"


def ways(paths: list[Path]) -> dict[str, Callable[[], Iterator[Tensor]]]:
    """Name of a way -> what yields f32 (..., 3, 224, 224) of every photograph."""
    processor, in_pillow = ViTImageProcessor(**SETTINGS), ViTImageProcessorPil(**SETTINGS)
    transform = ImageTransform.from_processor(processor)

    def by(one: Any) -> Iterator[Tensor]:
        for path in paths:
            with Image.open(path) as picture:
                yield torch.as_tensor(one(picture.convert("RGB"), return_tensors="pt")["pixel_values"][0])

    def loader(workers: int) -> Iterator[Tensor]:
        images = [CaptionedImage(path.name, str(path), ("",), path.name) for path in paths]
        words = Processor(None, transform, 0, 0, 0, 8)  # type: ignore[arg-type]  # no captions here
        plan = LengthGroupedSampler([1] * len(images), BATCH, shuffle=False, equal_steps=False)
        for batch in CaptionLoader(CaptionDataset(images, transform), plan, words, num_workers=workers):
            assert batch.pixel_values is not None
            yield batch.pixel_values

    return {
        BASELINE: lambda: by(processor),
        "processor in Pillow": lambda: by(in_pillow),
        "one by one, no threads": lambda: (transform(load_image(path)) for path in paths),
        OURS: lambda: loader(choose_workers(None, pixels=True)),
    }


class Clock:
    """The ways in this process; ours with the C library set as training sets it."""

    def __init__(self, paths: list[Path], ours: bool) -> None:
        if ours:
            tune_malloc()
        self.ways = ways(paths)

    def time(self, name: str) -> tuple[float, float]:
        """Wall-clock and processor seconds of all photographs."""
        start, cpu_start = time.perf_counter(), time.process_time()
        for pixels in self.ways[name]():
            del pixels
        return time.perf_counter() - start, time.process_time() - cpu_start


def measure(paths: list[Path], rounds: int) -> dict[str, dict[str, float]]:
    """Images per second of each way (median of the rounds), and processor seconds per 1,000 images."""
    every = ways(paths)
    sides = {ours: Apart(Clock, paths, ours) for ours in (True, False)}
    seconds: dict[str, list[float]] = {name: [] for name in every}
    cpu: dict[str, list[float]] = {name: [] for name in every}
    for turn in range(rounds + 1):
        for name in every:
            spent = sides[not name.startswith(BASELINE)].call("time", name)
            if turn:  # the first warms files and kernels
                seconds[name].append(spent[0])
                cpu[name].append(spent[1])
    for side in sides.values():
        side.close()
    return {
        name: {
            "images_per_second": len(paths) / statistics.median(seconds[name]),
            "cpu_seconds_per_1000": 1000 * statistics.median(cpu[name]) / len(paths),
        }
        for name in every
    }


def worst_difference(paths: list[Path]) -> float:
    """The largest difference of a pixel between loader and processor, on the scale of 0 to 1."""
    every = ways(paths)
    ours = (image for batch in every[OURS]() for image in batch)
    return max(
        ((found - expected).abs() / 2).max().item()
        for found, expected in zip(ours, every[BASELINE](), strict=True)
    )


def enlarge(paths: list[Path], folder: Path, edge: int = 500) -> list[Path]:
    """The photographs with their longer edge at `edge` pixels, as JPEG of usual quality."""
    made = []
    for path in paths:
        with Image.open(path) as picture:
            scale = edge / max(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            made.append(folder / path.name)
            picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(made[-1], "JPEG", quality=90)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, default=PHOTOGRAPHS, help="folder of photographs")
    parser.add_argument("--count", type=int, default=700, help="photographs to use")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the first, at least 3")
    arguments = parser.parse_args()
    paths = sorted(arguments.images.glob("*.jpg"))[: arguments.count]
    if not paths or arguments.rounds < 3:
        sys.exit(
            f"{len(paths)} .jpg files in {arguments.images}, {arguments.rounds} rounds; expected 1 and 3"
        )
    result: dict[str, Any] = {"images": len(paths), "threads": choose_workers(None, pixels=True)}
    with tempfile.TemporaryDirectory() as folder:
        for name, chosen in (("as they are", paths), ("at 500 pixels", enlarge(paths, Path(folder)))):
            difference = worst_difference(chosen)
            found = measure(chosen, arguments.rounds)
            base = found[BASELINE]["images_per_second"]
            print(f"\n{len(chosen)} photographs {name}, largest difference {difference * 255:.2f}/255")
            print(f"{'way':24} {'images/s':>10} {'ratio':>7} {'CPU s / 1,000':>14}")
            for way, row in found.items():
                row["ratio"] = row["images_per_second"] / base
                numbers = f"{row['images_per_second']:10,.0f} {row['ratio']:7.2f}"
                print(f"{way:24} {numbers} {row['cpu_seconds_per_1000']:14.2f}")
            result[name.replace(" ", "_")] = {"largest_difference": difference, "ways": found}
    result["ratio"] = result["as_they_are"]["ways"][OURS]["ratio"]
    result["same_pixels"] = all(
        result[name]["largest_difference"] <= TOLERANCE for name in ("as_they_are", "at_500_pixels")
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
