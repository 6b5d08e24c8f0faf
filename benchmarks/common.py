"""Shared by the benchmarks: arguments, tables, this project's training as its configs build it, machine figures."""

import argparse
import atexit
import copy
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.collate import CaptionBatch
from src.models.vit_gpt2 import VitGpt2
from src.tasks.building import build_data, build_model, build_trainer
from src.utils.precision import has_native_bf16
from src.utils.run_folder import register_resolvers

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "src" / "demo" / "vit_gpt2_tiny"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
PEAK_SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (1024, 768, 3072), (1024, 3072, 768))
if DEVICE == "cuda":
    PEAK_SHAPES = ((8192, 8192, 8192),)
    torch.set_float32_matmul_precision("high")  # TF32, for every side


def plain_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring as it is."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def make_parser(description: str | None, methods: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return a parser with common options; --only: of `methods`, by default all with native precision."""
    parser = plain_parser(description)
    parser.add_argument("--checkpoint", default=str(TINY), help="a VisionEncoderDecoder folder; the tiny model")
    parser.add_argument("--data-dir", help="images and captions in a Flickr layout; default: synthetic scenes")
    if methods:
        able = [name for name in methods if "bf16" not in name or has_native_bf16("auto")]
        parser.add_argument("--only", nargs="+", choices=methods, default=able, help="some of the methods")
    return parser


def data_overrides(data_dir: str | None, num_images: int = 640) -> list[str]:
    """Return the overrides of a Flickr folder, or of that many synthetic scenes."""
    if data_dir:
        return ["datamodule=flickr", f"datamodule.data_dir={Path(data_dir).resolve()}"]
    return ["datamodule=synthetic_flickr", f"datamodule.num_images={num_images}"]


def report(
    title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], result: Mapping, record: bool = False
) -> None:
    """Print a Markdown table, then one line of JSON; record: also append the table to RESULTS.md, dated."""
    table = "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in [header, ["---"] * len(header), *rows])
    print(f"\n{title}\n\n{table}\n{json.dumps(result)}", flush=True)
    if record:
        version = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(version, cwd=ROOT, capture_output=True, text=True).stdout.strip()
        device = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{os.cpu_count()} CPU cores"
        command = " ".join(["python -m", Path(sys.argv[0]).stem, *sys.argv[1:]])
        with (ROOT / "benchmarks" / "RESULTS.md").open("a", encoding="utf-8") as file:
            file.write(f"\n## {title}, {date.today()}\n\nCommit {commit}; {device}; `{command}`.\n\n{table}\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "-" if value is None else str(value)


def silence() -> None:
    """Keep the libraries' messages out of the table, for the life of the process."""
    warnings.simplefilter("ignore")
    for name in ("transformers", "pytorch_lightning", "lightning", "src"):
        logging.getLogger(name).setLevel(logging.ERROR)


class Isolated:
    """An object made in a new process, so that what it sets there (memory allocation) helps no other side."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        self.pool = ProcessPoolExecutor(1, get_context("spawn"), _make, (make, args))
        self.pool.submit(int)  # starts the process now

    def call(self, name: str, *args: Any) -> Any:
        """Return the result of a method."""
        return self.pool.submit(_call, name, args).result()


_isolated: list[Any] = []


def _make(make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    silence()
    _isolated.append(make(*args))


def _call(name: str, args: tuple[Any, ...]) -> Any:
    return getattr(_isolated[0], name)(*args)


def run_python(arguments: Sequence[str]) -> dict[str, Any]:
    """Run this Python with arguments in the project's folder; return the last line of output, JSON."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def peak_memory() -> float:
    """Return the peak memory of this process in GB: that of the GPU, or resident on the CPU."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def compose_config(*overrides: str) -> DictConfig:
    """Compose train.py's config without loggers, callbacks and validation, writing into a temporary folder."""
    os.environ.setdefault("PROJECT_ROOT", str(ROOT))
    register_resolvers()
    folder = tempfile.mkdtemp(prefix="benchmark-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    plain = ["logger=none", "callbacks=none", f"trainer={'gpu' if DEVICE == 'cuda' else 'cpu'}"]
    plain += ["trainer.limit_val_batches=0", "trainer.num_sanity_val_steps=0", "+trainer.enable_checkpointing=false"]
    paths = [f"paths.{name}_dir={folder}" for name in ("output", "work", "log")]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("train", [*plain, *paths, *overrides])


def build(config: DictConfig) -> tuple[CaptionDataModule, VitGpt2]:
    """Build the data module and the model of a config."""
    datamodule = build_data(config)
    return datamodule, build_model(config, datamodule)


class StepClock(pl.Callback):
    """Seconds and captions of each whole step: from one batch's start to the next one's, data included."""

    def __init__(self) -> None:
        self.starts, self.captions, self.image_ids = list[float](), list[int](), list[list[str]]()
        self.losses: list[torch.Tensor] = []  # read when all have ended

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: CaptionBatch, index: int) -> None:
        if index in (1, trainer.max_steps - 1):  # the first and the last time that counts
            synchronize()
        self.starts.append(time.perf_counter())
        self.captions.append(count_captions(batch))
        self.image_ids.append(list(batch.image_ids))

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *rest: Any) -> None:
        self.losses.append(outputs["loss"].clone())

    def captions_per_second(self, skip: int = 1) -> float:
        """Return the rate between step `skip` and the last one, whose end nobody clocks."""
        return sum(self.captions[skip:-1]) / (self.starts[-1] - self.starts[skip])


def count_captions(batch: CaptionBatch) -> int:
    """Count the captions packed in a batch."""
    return sum(len(references) for references in batch.references)


def train_steps(
    config: DictConfig, datamodule: Any, module: VitGpt2, steps: int, precision: str, callbacks: Sequence[Any] = ()
) -> StepClock:
    """Fit for one step to warm up, `steps` to clock, and one whose start ends the last of them."""
    clock, config = StepClock(), config.copy()
    config.trainer.update({"max_steps": steps + 2, "max_epochs": -1, "precision": precision})
    trainer = build_trainer(config)
    trainer.callbacks.extend([clock, *callbacks])
    trainer.fit(module, datamodule=datamodule)
    return clock


def autocast(method: str) -> Any:
    """Return autocast to bf16 for methods with that word in their names."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled="bf16" in method)


def machine_peak(dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Return the most FLOP/s that a product of two matrices reaches here, through torch or a oneDNN layer."""
    from torch.utils.mkldnn import to_mkldnn

    best, end = 0.0, time.perf_counter() + seconds
    runs: list[tuple[int, Any, Any]] = []
    for rows, inner, columns in PEAK_SHAPES:
        x, layer = torch.randn(rows, inner).to(DEVICE, dtype), torch.nn.Linear(inner, columns).eval()
        if DEVICE == "cpu" and torch.backends.mkldnn.is_available():  # with the weight laid out beforehand
            runs.append((2 * rows * inner * columns, to_mkldnn(layer, dtype), x.to_mkldnn()))
        runs.append((2 * rows * inner * columns, copy.deepcopy(layer).to(DEVICE, dtype), x))
    with torch.no_grad():
        while time.perf_counter() < end:
            for flops, layer, x in runs:
                start = time.perf_counter()
                layer(x)
                synchronize()
                best = max(best, flops / (time.perf_counter() - start))
    return best


def count_flops(run: Callable[[], Any]) -> int:
    """Count the floating-point operations of all matrix products of one call, attention included."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()
