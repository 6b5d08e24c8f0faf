"""Measure the cost of a caption as pairs, captions per image and processes grow: `python -m benchmarks.scaling`.

Seconds of a training step per caption, for 100 to 10,000 image-caption pairs, for 1 to 5 captions of each image, and
for one process and two with the same images in a step; and seconds to read, check and split the data. A step runs
from one batch's start to the next one's; the median counts. The features of one batch serve as those of all images.
"""

import itertools
import statistics
import tempfile
import time
import zlib
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from src.demo.synthetic.datamodules import write_scenes
from src.utils.precision import choose_precision

CAPTIONS = 5


class RepeatedFeatures:
    """A feature store that returns for any image one of the features (N,P,D) that it has."""

    num_views = 1

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def get(self, image_id: str, view: int = 0) -> Tensor:
        """Return features (P,D)."""
        return self.features[zlib.crc32(image_id.encode()) % len(self.features)]


def measure(options: dict[str, Any], *overrides: str) -> dict[str, float]:
    """Return seconds of setup, and of a step per caption."""
    start = time.perf_counter()
    config = common.compose_config(
        "datamodule=flickr", f"datamodule.data_dir={options['data_dir']}", *overrides,
        f"datamodule.batch_size={options['images'] // options['processes']}",
        f"model.checkpoint={options['checkpoint']}",
    )  # fmt: skip
    datamodule, module = common.build(config)
    seconds = time.perf_counter() - start
    precision = str(choose_precision("auto", "cpu"))
    pixels = next(iter(datamodule.train_dataloader())).pixel_values
    with torch.no_grad(), common.autocast(precision):
        datamodule.features = RepeatedFeatures(module.captioner.backbone_features(pixels))
    clock = common.train_steps(config, datamodule, module, options["steps"], precision)
    steps = [end - start for start, end in itertools.pairwise(clock.starts)][1:]
    cost = statistics.median(step / count for step, count in zip(steps, clock.captions[1:], strict=False))
    return {"setup s": seconds, "s per caption": cost / options["processes"], "rank": module.global_rank}


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--pairs", default="100,300,1000,3000,10000")
    parser.add_argument("--images", type=int, default=16, help="in a step")
    parser.add_argument("--steps", type=int, default=10, help="measured of each")
    parser.add_argument("--processes", type=int, default=0, help="measure that many processes alone")
    options = vars(parser.parse_args())
    common.silence()
    if options["processes"]:
        parallel = ["trainer=ddp_sim", f"trainer.devices={options['processes']}"] if options["processes"] > 1 else []
        found = measure(options, *parallel, "datamodule.num_samples=1000")
        if found["rank"] == 0:
            common.report("Processes", ["number", "s per caption"], [], found)
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        pairs = [int(number) for number in options["pairs"].split(",")]
        if not options["data_dir"]:
            options["data_dir"] = f"{folder}/scenes"
            write_scenes(options["data_dir"], -(-max(pairs) // CAPTIONS), "night")
        shared = ["--data-dir", options["data_dir"], "--checkpoint", options["checkpoint"]]
        processes = {}
        for number in (1, 2):
            arguments = ["-m", "benchmarks.scaling", *shared, "--processes", str(number)]
            processes[f"{number} processes"] = common.run_python([*arguments, "--images", str(options["images"])])
        options["processes"] = 1
        found = {f"{number} pairs": measure(options, f"datamodule.num_samples={number}") for number in pairs}
        for number in range(1, CAPTIONS + 1):
            found[f"{number} captions an image"] = measure(options, f"datamodule.captions_per_image={number}")
        found |= processes
    columns = ["setup s", "s per caption"]
    rows = [[name, *(row[column] for column in columns)] for name, row in found.items()]
    common.report(f"Scaling, {options['images']} images a step", ["", *columns], rows, found)


if __name__ == "__main__":
    main()
