"""Measure image files to encoder input beside the image processor: `python -m benchmarks.image_loading`.

The median of the rounds counts. Without --data-dir: synthetic scenes of 200 and 500 pixels.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import ViTImageProcessor

from benchmarks import common
from src.datamodule.images.decode import load_image
from src.demo.synthetic.datamodules import write_scenes
from src.models.kernels.linear import tune_malloc

BASELINE = "processor"
METHODS = (BASELINE, "ours_no_threads", "ours")


class Loading:
    """All methods over one set of images."""

    def __init__(self, data_dir: str, checkpoint: str, ours: bool) -> None:
        if ours:
            tune_malloc()  # as training does
        whole = ("datamodule.split_ratios=[0,0,1]", f"model.checkpoint={checkpoint}")  # all images in one split
        self.datamodule, module = common.build(common.compose_config(*common.data_overrides(data_dir), *whole))
        self.processor, self.image_processor = module.processor, ViTImageProcessor.from_pretrained(checkpoint)
        self.images = self.datamodule.splits["test"]

    def batches(self, method: str) -> Iterator[Tensor]:
        """Yield pixels f32 (B,3,H,W) of all images."""
        if method == "ours":
            yield from (batch.pixel_values for batch in self.datamodule.test_dataloader())
        for image in self.images if method != "ours" else ():
            if method == BASELINE:
                with Image.open(image.path) as opened:
                    pixels = self.image_processor(opened.convert("RGB"), return_tensors="pt").pixel_values
                yield torch.as_tensor(pixels)
            else:
                yield self.processor.image(load_image(image.path))[None]

    def time(self, method: str) -> tuple[float, float]:
        """Return images per second, and seconds of processor time for 1,000 images."""
        start, cpu = time.perf_counter(), time.process_time()
        for pixels in self.batches(method):
            del pixels
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return len(self.images) / seconds, 1000 * cpu / len(self.images)

    def largest_difference(self) -> float:
        """Return the largest difference of a pixel between ours and the processor's, in 255ths."""
        theirs = dict(zip((image.image_id for image in self.images), self.batches(BASELINE), strict=True))
        pairs = ((batch.pixel_values, batch.image_ids) for batch in self.datamodule.test_dataloader())
        worst = max(float((ours - torch.cat([theirs[name] for name in names])).abs().max()) for ours, names in pairs)
        return worst / 2 * 255


def measure(data_dir: Path, checkpoint: str, rounds: int) -> dict[str, Any]:
    """Return columns of the table, by method."""
    sides = {ours: common.Isolated(Loading, str(data_dir), checkpoint, ours) for ours in (True, False)}
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    difference = sides[True].call("largest_difference")
    for _ in range(rounds):
        for method in METHODS:
            found[method].append(sides[method != BASELINE].call("time", method))
    medians = {method: [statistics.median(values) for values in zip(*found[method], strict=True)] for method in METHODS}
    speed, cpu = ({method: values[column] for method, values in medians.items()} for column in (0, 1))
    ratio = {method: value / speed[BASELINE] for method, value in speed.items()}
    return {"images/s": speed, "ratio": ratio, "CPU s for 1,000": cpu, "difference/255": {"ours": difference}}


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    common.silence()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folders = [Path(options.data_dir).resolve()] if options.data_dir else []
        for size in () if folders else (200, 500):
            folders.append(Path(scratch) / f"{size} pixels")
            write_scenes(folders[-1], 320, size=size)
        for folder in folders:
            result = measure(folder, options.checkpoint, options.rounds)
            rows = [[method, *(column.get(method) for column in result.values())] for method in METHODS]
            common.report(f"Images, {folder.name}", ["method", *result], rows, result)


if __name__ == "__main__":
    main()
