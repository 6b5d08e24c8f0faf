"""Losses of images with colliding names, sizes and times in two subfolders; a command whose processes are forks.

`python -m tests.callbacks.collisions CHECKPOINT FOLDER VIEWS PROCESSES` prints the losses; VIEWS=0 reads pixels.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from src.callbacks.feature_cache import FeatureCache
from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionedImage, CaptionTable
from src.models.vit_gpt2 import VitGpt2
from tests.tiny import trainer


def write_images(folder: Path, count: int) -> None:
    """Write `count` images of equal size and time: as many names in each of two subfolders."""
    rng = np.random.default_rng(0)
    for subfolder in ("cats", "dogs"):
        (folder / subfolder).mkdir(parents=True)
        for number in range(count // 2):
            path = folder / subfolder / f"{number:04}.bmp"
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
            os.utime(path, (315532800, 315532800))


def read_table(folder: Path) -> CaptionTable:
    """Read the images, each with a caption of its own."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*.bmp"))]
    images = [CaptionedImage(name, str(folder / name), (f"image of {name}",), name) for name in names]
    return CaptionTable(images, [], len(images))


def losses(checkpoint: str, folder: Path, views: int, processes: int = 1) -> dict[str, float]:
    """Return val and test loss of a run with a learning rate of 0."""
    torch.manual_seed(0)
    module = VitGpt2(
        checkpoint, optimizer=partial(torch.optim.SGD, lr=0.0), generation={"max_length": 8, "num_beams": 1}
    )
    data = CaptionDataModule(
        lambda: read_table(folder / "images"), module.processor, batch_size=4, num_workers=0,
        split_ratios=(0.5, 0.25, 0.25),
    )  # fmt: skip
    cache = FeatureCache(str(folder / "cache"), enabled=views > 0, views=max(views, 1))
    settings = {"devices": processes, "strategy": "ddp_fork"} if processes > 1 else {}
    fitted = trainer(folder, cache, **settings)
    fitted.fit(module, data)
    found = {"val/loss": float(fitted.callback_metrics["val/loss"])}
    fitted.test(module, data, verbose=False)
    assert processes > 1 or (data.features is not None) == (views > 0)
    return found | {"test/loss": float(fitted.callback_metrics["test/loss"])}


if __name__ == "__main__":
    base, place, number, world_size = sys.argv[1:]
    print(json.dumps(losses(base, Path(place), int(number), int(world_size))))
