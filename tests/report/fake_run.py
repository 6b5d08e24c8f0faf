"""A run folder of synthetic images with the files that an evaluation writes."""

import csv
import json
import random
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw

from src.report.cross_attention_maps import encode_attention

COLOURS = {"red": "#c8503c", "green": "#4f9d69", "blue": "#3f6fb5", "yellow": "#e3b23c", "purple": "#7d5ba6"}
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
    folder.mkdir(parents=True, exist_ok=True)
    rows, maps = [], {}
    for number in range(count):
        row, heat = _image(folder, number, rng, noise)
        rows.append(row)
        maps[row["image_id"]] = heat
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
    (folder / "attention.json").write_text(json.dumps(entries))
    (folder / "metrics.json").write_text(json.dumps(_metrics()))
    (folder / "csv").mkdir(exist_ok=True)
    _write_csv(folder / "csv" / "metrics.csv", _history())
    (folder / "run.json").write_text(json.dumps(_about()))
    return folder


def _image(folder: Path, number: int, rng: random.Random, noise: bool) -> tuple[dict, WordAttention]:
    colour, thing, place = rng.choice(list(COLOURS)), rng.choice(THINGS), rng.choice(list(PLACES))
    width, height = rng.choice([(500, 375), (375, 500), (480, 480), (640, 300)])
    size, across, down = rng.uniform(0.2, 0.4), rng.uniform(0.25, 0.75), rng.uniform(0.45, 0.65)
    image = Image.new("RGB", (width, height), PLACES[place])
    if noise:
        image = Image.effect_noise((width, height), 90).convert("RGB")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width, height * 0.4), fill="#cfe3ee")
    half = size * min(width, height) / 2
    box = (across * width - half, down * height - half, across * width + half, down * height + half)
    (pen.ellipse if thing == "ball" else pen.rectangle)(box, fill=COLOURS[colour])
    (folder / "images").mkdir(exist_ok=True)
    path = folder / "images" / f"{number:04d}.jpg"
    image.save(path, quality=90)
    caption = f"a {colour} {thing} stands {place}"
    score, base = rng.betavariate(4, 2) * 4, rng.betavariate(1.2, 5) * 3
    row = {
        "image_id": path.name, "path": str(path), "caption": caption,
        "zero_shot_caption": f"an image of a {rng.choice(THINGS)}",
        **{f"reference_{k}": text for k, text in enumerate(_references(colour, thing, place), 1)},
        "license": "CC BY 4.0" if number % 3 == 0 else "", "bleu_4": score / 5, "cider_d": score,
        "rouge_l": score / 4.2, "zero_shot_bleu_4": base / 6, "zero_shot_cider_d": base,
        "zero_shot_rouge_l": base / 4,
    }  # fmt: skip
    return {key: str(value) for key, value in row.items()}, _attention(caption, across, down, size)


def _references(colour: str, thing: str, place: str) -> list[str]:
    return [
        f"A {colour} {thing} {place} .", f"There is one {thing} , it is {colour} .", f"{thing} {place}",
        f"The {thing} in the middle is {colour} , seen from afar on a bright and quiet day .",
        f"A scene with a {colour} {thing} .",
    ]  # fmt: skip


def _attention(caption: str, across: float, down: float, size: float) -> WordAttention:
    """A blob on the thing for its words, a band for the place's, something faint for the rest."""
    words = caption.split()
    y, x = torch.meshgrid(torch.linspace(0, 1, GRID), torch.linspace(0, 1, GRID), indexing="ij")
    blob = torch.exp(-((x - across) ** 2 + (y - down) ** 2) / (size / 2.2) ** 2)
    band = torch.sigmoid((y - 0.45) * 14) * (1 - 0.8 * blob)
    grids = [
        blob if place in (1, 2) else band if place > 3 else 0.4 * band + blob for place in range(len(words))
    ]
    noise = torch.rand(len(words), GRID, GRID, generator=torch.Generator().manual_seed(0)) * 0.12
    heat = torch.stack(grids) + noise
    return WordAttention(words, heat / heat.amax(dim=(1, 2), keepdim=True))


def _metrics() -> dict[str, float]:
    scores = {
        "cider_d": (2.512, 0.451), "bleu_4": (0.412, 0.098), "bleu_3": (0.49, 0.16), "bleu_2": (0.6, 0.27),
        "bleu_1": (0.74, 0.45), "rouge_l": (0.633, 0.341),
    }  # fmt: skip
    metrics = {
        "test/loss": 1.214, "zero_shot/test/loss": 3.402, "data/skipped_rows": 3, "data/unreadable_images": 1,
        "time/fit_seconds": 61.5, "train/loss": 1.1, "val/loss": 1.25, "val/loss_best": 1.22,
    }  # fmt: skip
    for name, values in scores.items():
        for prefix, value in zip(("test/", "zero_shot/test/"), values, strict=True):
            metrics |= {f"{prefix}{name}": value, f"{prefix}{name}_low": value * 0.93}
            metrics |= {f"{prefix}{name}_high": value * 1.06}
    more = {"distinct_captions": (0.81, 0.12), "mean_length": (9.4, 7.1), "repeated_ngrams": (0.01, 0.2)}
    for name, (tuned, base) in more.items():
        metrics |= {f"test/{name}": tuned, f"zero_shot/test/{name}": base}
    return metrics


def _history() -> list[dict]:
    rng = random.Random(1)
    rows = []
    for step in range(300):
        loss = 1.05 + 2.4 * 0.985**step + rng.gauss(0, 0.06)
        rows.append(
            {"epoch": step // 50, "step": step, "train/loss": loss, "val/loss": "", "val/cider_d": ""}
        )
        if step % 50 == 49:
            val = 1.2 + 2.0 * 0.985**step + (0.03 if step == 299 else 0)
            rows.append({"epoch": step // 50, "step": step, "train/loss": "", "val/loss": val,
                         "val/cider_d": 2.5 - 2 * 0.98**step})  # fmt: skip
    return rows


def _about() -> dict:
    return {
        "command": "python train.py experiment=demo datamodule.data_dir='data/a b' model.num_beams=4",
        "commit": "36d1d9289d320dca47fd6e5a0143bd460d430b14", "seed": 0, "split": "test",
        "started": "2026-03-01T12:00:00+00:00", "seconds": 83.2, "task": "train",
        "versions": {"python": "3.11.9", "torch": "2.9.0", "transformers": "5.9.0", "captioner": "0.1.0"},
    }  # fmt: skip


def _write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
