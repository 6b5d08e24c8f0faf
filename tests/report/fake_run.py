"""A run folder of synthetic images with the files that an evaluation writes."""

import csv
import json
import random
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw

from src.report.run_files import encode_attention

COLOURS = {"red": "#c8503c", "green": "#4f9d69", "blue": "#3f6fb5", "purple": "#7d5ba6"}
THINGS = ("ball", "house", "tree", "car", "boat")
PLACES = {
    "on the grass": "#9cc48a",
    "by the sea": "#8fbcd4",
    "in the snow": "#e8eef2",
    "on the sand": "#e2cfa3",
}
HOSTILE = "a dog </script><script>window.hacked = 1</script> <img src=x onerror='window.hacked = 2'>"
GRID = 14


class WordAttention(NamedTuple):
    """As src.models.attention_maps has it, without the seconds that importing a model takes."""

    words: list[str]
    heat: torch.Tensor
    region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


def make_run(folder: Path, count: int = 12, noise: bool = False, hostile: bool = True) -> Path:
    """Write a complete run folder; with `hostile`, one caption and file name try to be HTML."""
    rng = random.Random(0)
    (folder / "images").mkdir(parents=True)
    rows, maps = [], {}
    for number in range(count):
        rows.append(_image(folder / "images" / f"{number:04d}.jpg", rng, noise))
        words = rows[-1]["caption"].split()
        heat = torch.rand(len(words), GRID, GRID, generator=torch.Generator().manual_seed(number))
        maps[rows[-1]["image_id"]] = WordAttention(words, heat)
    if hostile:
        rows[1] |= {
            "caption": HOSTILE,
            "zero_shot_caption": "=HYPERLINK(1)",
            "reference_1": "<b>bold</b> & co",
        }
        del maps[rows[1]["image_id"]]
        rows[2]["image_id"] = '<u>&name">.jpg'
    _write_csv(folder / "predictions.csv", rows)
    entries = [encode_attention(*item) for item in list(maps.items())[: count // 2 + 1]]
    (folder / "csv").mkdir()
    _write_csv(folder / "csv" / "metrics.csv", _history())
    about = {
        "command": "python train.py experiment=demo datamodule.data_dir='data/a b' model.num_beams=4",
        "commit": "36d1d9289d320dca47fd6e5a0143bd460d430b14", "seed": 0, "started": "2026-03-01T12:00:00+00:00",
        "versions": {"python": "3.11.9", "torch": "2.9.0", "transformers": "5.9.0", "captioner": "0.1.0"},
    }  # fmt: skip
    for name, content in (("attention", entries), ("metrics", _metrics()), ("run", about)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def _image(path: Path, rng: random.Random, noise: bool) -> dict[str, str]:
    """Draw an image and return its row."""
    colour, thing, place = rng.choice(list(COLOURS)), rng.choice(THINGS), rng.choice(list(PLACES))
    size = rng.choice([(500, 375), (375, 500), (480, 480), (640, 300)])
    image = Image.effect_noise(size, 90).convert("RGB") if noise else Image.new("RGB", size, PLACES[place])
    ImageDraw.Draw(image).ellipse((100, 100, 250, 250), fill=COLOURS[colour])
    image.save(path, quality=90)
    references = [
        f"A {colour} {thing} {place} .", f"There is one {thing} , it is {colour} .", f"{thing} {place}",
        f"The {thing} in the middle is {colour} , seen from afar on a bright and quiet day .",
        f"A scene with a {colour} {thing} .",
    ]  # fmt: skip
    score, base = rng.betavariate(4, 2) * 4, rng.betavariate(1.2, 5) * 3
    row = {
        "image_id": path.name, "path": path, "caption": f"a {colour} {thing} stands {place}",
        "zero_shot_caption": f"an image of a {rng.choice(THINGS)}",
        **{f"reference_{number}": text for number, text in enumerate(references, 1)},
        "license": "CC BY 4.0" if int(path.stem) % 3 == 0 else "", "bleu_4": score / 5, "cider_d": score,
        "rouge_l": score / 4.2, "zero_shot_bleu_4": base / 6, "zero_shot_cider_d": base,
        "zero_shot_rouge_l": base / 4,
    }  # fmt: skip
    return {key: str(value) for key, value in row.items()}


def _metrics() -> dict[str, float]:
    scores = {
        "cider_d": (2.512, 0.451), "bleu_4": (0.412, 0.098), "bleu_3": (0.49, 0.16), "bleu_2": (0.6, 0.27),
        "bleu_1": (0.74, 0.45), "rouge_l": (0.633, 0.341),
    }  # fmt: skip
    metrics = {
        "test/loss": 1.214, "zero_shot/test/loss": 3.402, "data/skipped_rows": 3, "data/unreadable_images": 1,
        "time/fit_seconds": 61.5, "train/loss": 1.1, "val/loss": 1.25, "val/loss_best": 1.22,
        "test/distinct_captions": 0.81, "zero_shot/test/distinct_captions": 0.12, "test/mean_length": 9.4,
    }  # fmt: skip
    for name, values in scores.items():
        for key, value in zip((f"test/{name}", f"zero_shot/test/{name}"), values, strict=True):
            metrics |= {key: value, f"{key}_low": value * 0.93, f"{key}_high": value * 1.06}
    return metrics


def _history() -> list[dict]:
    rows = []
    for step in range(300):
        rows.append({"step": step, "train/loss": 1.05 + 2.4 * 0.985**step, "val/loss": "", "val/cider_d": ""})
        if step % 50 == 49:
            loss, score = 1.2 + 2.0 * 0.985**step, 2.5 - 2 * 0.98**step
            rows.append({"step": step, "train/loss": "", "val/loss": loss, "val/cider_d": score})
    return rows


def _write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
