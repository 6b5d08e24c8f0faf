"""The measurements behind `benchmarks.scaling`; run as a module it is one of its training processes.

N images whose features are at hand, P patches + class token, D width.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import baselines, product
from benchmarks.common import quiet
from src.callbacks.feature_cache import FeatureCache, backbone_shape
from src.datamodule.caption_dataset import CaptionTokens
from src.datamodule.medicat import MedicatDataModule
from src.demo.synthetic.datamodules import write_scenes
from src.models.freezing import choose_trainable
from src.models.pretrained import load_captioner
from src.tasks.building import build_data
from src.utils.command import parse_command, run_command
from src.utils.errors import UserError
from src.utils.hardware import choose_precision

TRUNK_IMAGES = 64
CAPTIONS = 5


@dataclass
class RepeatedFeatures:
    """A `FeatureStore` that gives any image one of the features (N,P,D) that it has."""

    features: Tensor
    num_views: int = 1

    def get(self, image_id: str, view: int = 0) -> Tensor:
        """Features (P,D)."""
        return self.features[zlib.crc32(image_id.encode()) % len(self.features)]


class TimedCache(FeatureCache):
    """A feature cache that knows how long it took to build."""

    seconds = 0.0

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """As `FeatureCache.setup`."""
        start = time.perf_counter()
        super().setup(*args, **kwargs)
        self.seconds += time.perf_counter() - start


def median_cost(starts: list[float], captions: list[int], skip: int = 1) -> float:
    """Seconds per caption, the median of the steps behind the first `skip`; the last has no end."""
    seconds = [end - start for start, end in itertools.pairwise(starts)]
    return statistics.median(s / c for s, c in list(zip(seconds, captions, strict=False))[skip:])


def config_for(settings: Mapping[str, Any], data_dir: str, *words: str) -> Any:
    """The project's config over drawn scenes."""
    return product.compose_config(
        "datamodule=flickr", f"datamodule.data_dir={data_dir}", f"datamodule.batch_size={settings['images']}",
        f"model.checkpoint={settings['checkpoint']}", *words,
    )  # fmt: skip


class Workshop:
    """A model, and drawn scenes in a folder that lasts as long as the `with` block."""

    def __init__(self, settings: Mapping[str, Any], pairs: int) -> None:
        self.settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        self.data_dir = f"{self._folder.name}/scenes"
        write_scenes(self.data_dir, max(-(-pairs // CAPTIONS), 2 * TRUNK_IMAGES), "night")
        self.precision = choose_precision("auto", "cpu")

    def __enter__(self) -> "Workshop":
        self.config = config_for(
            self.settings, self.data_dir, f"datamodule.num_samples={CAPTIONS * TRUNK_IMAGES}"
        )
        self.datamodule, self.module = product.build(self.config)
        return self

    def __exit__(self, *rest: object) -> None:
        self._folder.cleanup()

    def once(self) -> dict[str, Any]:
        """Rates of what does not depend on pairs or K; the features are kept for what does."""
        module, datamodule = self.module, self.datamodule
        cache = TimedCache(f"{self._folder.name}/cache", size_limit_gb=None)
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in str(self.precision)):
            module.captioner.backbone_features(next(iter(datamodule.val_dataloader())).pixel_values)  # warms up
        product.train_steps(self.config, (datamodule, module), 1, str(self.precision), [cache])
        images = [*datamodule.splits["train"], *datamodule.splits["val"]]
        store: Any = datamodule.features
        self.features = RepeatedFeatures(torch.stack([store.get(image.image_id) for image in images]))
        return {
            "backbone_image": cache.seconds / len(images),
            "published_caption": self._published(),
            "feature_bytes": self.features.features[0].nbytes,
            "all_weights": sum(weight.numel() for weight in module.model.parameters()),
            "trained_weights": sum(weight.numel() for weight in module.trained_weights().values()),
        }

    def _published(self) -> float:
        """Seconds of the published loop's step per caption, the median of 3."""
        captioner, count = load_captioner(self.settings["checkpoint"]), self.settings["published"]
        choose_trainable(captioner.model, "last_blocks", 1)
        images = self.datamodule.splits["train"][: -(-count // CAPTIONS)]
        rows = baselines.caption_rows(images, captioner.processor)[:count]
        tries = [
            baselines.train_published(captioner.model, rows, captioner.processor, count, 1)[0]
            for _ in range(3)
        ]
        return 1 / statistics.median(tries)

    def by_pairs(self, pairs: int) -> dict[str, float]:
        """Setup in seconds and a step's seconds per caption for a data set of that many pairs."""
        start = time.perf_counter()
        config = config_for(self.settings, self.data_dir, f"datamodule.num_samples={pairs}")
        datamodule = build_data(config)
        datamodule.connect(self.module.processor)
        datamodule.train_dataloader()
        setup = time.perf_counter() - start
        return {"setup_seconds": setup, "seconds_per_caption": self._fit(config, datamodule)}

    def by_captions(self, captions: int) -> dict[str, float]:
        """Seconds of a step per image, and tokens of an image, at that many captions of each."""
        words = (
            f"datamodule.captions_per_image={captions}",
            f"datamodule.num_samples={CAPTIONS * 2 * TRUNK_IMAGES}",
        )
        config = config_for(self.settings, self.data_dir, *words)
        datamodule = build_data(config)
        datamodule.connect(self.module.processor)
        tokens = CaptionTokens(datamodule.splits["train"], self.module.processor, None)
        mean = len(tokens.ids) / tokens.num_captions + 1  # the start token, or EOS
        return {"seconds": captions * self._fit(config, datamodule), "tokens": captions * mean}

    def _fit(self, config: Any, datamodule: Any) -> float:
        datamodule.features = self.features
        parts = datamodule, self.module
        clock = product.train_steps(config, parts, self.settings["steps"], str(self.precision))
        return median_cost(clock.starts, clock.captions)

    def medicat_tokens(self) -> float:
        """Mean tokens of the captions in MedICaT's sample, as many as the data module leaves.

        Raises:
            UserError: it is not there.
        """
        try:
            datamodule = MedicatDataModule(self.settings["medicat_dir"])
            images = datamodule.reader().images
        except UserError as error:
            raise UserError(f"{error}; or set medicat_tokens=") from error
        tokens = CaptionTokens(images, self.module.processor, 256)
        return len(tokens.ids) / tokens.num_captions + 1


def captions_per_second(settings: Mapping[str, Any], data_dir: str, processes: int) -> float:
    """Captions per second of all `processes` together, in processes of their own."""
    words = [f"{key}={settings[key]}" for key in ("checkpoint", "images", "steps")]
    command = [
        sys.executable,
        "-m",
        "benchmarks.scaling_runs",
        *words,
        f"data_dir={data_dir}",
        f"processes={processes}",
    ]
    done = subprocess.run(command, cwd=product.ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])["captions_per_second"]


def main(arguments: list[str]) -> None:
    """One training run with one or more processes; the first prints its captions per second."""
    defaults = {"checkpoint": None, "data_dir": None, "images": 16, "steps": 10, "processes": 1}
    settings = parse_command(arguments, defaults)
    count = settings["processes"]
    words = [f"datamodule.batch_size={max(1, settings['images'] // count)}"]
    words += ["trainer=ddp_sim", f"trainer.devices={count}"] if count > 1 else []
    with quiet():
        config = config_for(settings, settings["data_dir"], *words, "datamodule.num_samples=1000")
        datamodule, module = product.build(config)
        image = module.processor.image
        precision = str(choose_precision("auto", "cpu"))
        dtype = torch.bfloat16 if "bf16" in precision else torch.float32
        shape = backbone_shape(module, image.height, image.width)
        datamodule.features = RepeatedFeatures(torch.randn(TRUNK_IMAGES, *shape).to(dtype))
        clock = product.train_steps(config, (datamodule, module), settings["steps"], precision)
    if module.global_rank == 0:
        print(json.dumps({"captions_per_second": count / median_cost(clock.starts, clock.captions)}))


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
