"""A run folder of synthetic images with the files that an evaluation writes."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
from PIL import Image

from src.report.run_files import encode_attention

COLOURS = ("red", "green", "blue", "purple")
THINGS = ("ball", "house", "tree", "car", "boat")
PLACES = ("on the grass", "by the sea", "in the snow", "on the sand")
HOSTILE = "a dog </script><script>window.hacked = 1</script> <img src=x onerror='window.hacked = 2'>"
GRID = 14
SCORES = {
    "cider_d": (2.512, 0.451), "bleu_4": (0.412, 0.098), "bleu_3": (0.49, 0.16), "bleu_2": (0.6, 0.27),
    "bleu_1": (0.74, 0.45), "rouge_l": (0.633, 0.341),
}  # fmt: skip
METRICS = {
    "data/train_images": 100, "data/val_images": 1, "data/test_images": 12,
    "test/loss": 1.214, "zero_shot/test/loss": 3.402, "data/skipped_rows": 3, "data/unreadable_images": 1,
    "time/fit_seconds": 61.5, "train/loss": 1.1, "val/loss": 1.25, "val/loss_best": 1.22,
    "test/distinct_captions": 0.81, "zero_shot/test/distinct_captions": 0.12, "test/mean_length": 9.4,
}  # fmt: skip
ABOUT = {
    "command": "python train.py experiment=demo datamodule.data_dir='data/a b' model.generation.num_beams=4",
    "commit": "36d1d9289d320dca47fd6e5a0143bd460d430b14", "seed": 0, "started": "2026-03-01T12:00:00+00:00",
    "versions": {"python": "3.11.9", "torch": "2.9.0", "transformers": "5.9.0", "captioner": "0.1.0"},
}  # fmt: skip
CONFIG = """
train: true
datamodule: {_target_: src.demo.synthetic.datamodules.SyntheticFlickrDataModule, data_dir: /x/night-1600}
model: {checkpoint: /x/vit_gpt2_tiny, train: last_blocks, num_layers_to_train: 2, optimizer: {lr: 0.003}}
trainer: {max_epochs: 4, accelerator: cpu, precision: bf16-mixed}
"""


def word_attention(words, heat, region=(0.0, 0.0, 1.0, 1.0)) -> SimpleNamespace:
    """Like src.models.attention_maps.WordAttention, without the seconds that importing a model takes."""
    return SimpleNamespace(words=words, heat=heat, region=region)


def make_run(folder: Path, count: int = 12, hostile: bool = True) -> Path:
    """Write a complete run folder; with `hostile`, one caption and file name try to be HTML."""
    rng = random.Random(0)
    (folder / "images").mkdir(parents=True)
    (folder / "csv").mkdir()
    rows = [_image(folder / "images" / f"{number:04d}.jpg", rng) for number in range(count)]
    entries = []
    for number, row in enumerate(rows[: count // 2 + 2]):
        words = row["caption"].split()
        heat = torch.rand(len(words), GRID, GRID, generator=torch.Generator().manual_seed(number))
        entries.append(encode_attention(row["image_id"], word_attention(words, heat)))
    if hostile:
        rows[1] |= {"caption": HOSTILE, "zero_shot_caption": "=HYPERLINK(1)", "reference_1": "<b>bold</b> & co"}
        rows[2]["image_id"] = '<u>&name">.jpg'
        del entries[1]
    metrics = dict(METRICS)
    for name, values in SCORES.items():
        for key, value in zip((f"test/{name}", f"zero_shot/test/{name}"), values, strict=True):
            metrics |= {key: value, f"{key}_low": value * 0.93, f"{key}_high": value * 1.06}
    history = [{"step": step, "train/loss": 1.05 + 2.4 * 0.985**step} for step in range(300)]
    for step in range(49, 300, 50):
        history.append({"step": step, "val/loss": 1.2 + 2 * 0.985**step, "val/cider_d": 2.5 - 2 * 0.98**step})
    pd.DataFrame(rows).to_csv(folder / "predictions.csv", index=False)
    pd.DataFrame(history).to_csv(folder / "csv" / "metrics.csv", index=False)
    for name, content in (("attention", entries), ("metrics", metrics), ("run", ABOUT)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "config_resolved.yaml").write_text(CONFIG)
    return folder


def _image(path: Path, rng: random.Random) -> dict[str, str]:
    """Write an image and return its row."""
    colour, thing, place = rng.choice(COLOURS), rng.choice(THINGS), rng.choice(PLACES)
    Image.new("RGB", rng.choice([(500, 375), (375, 500), (480, 480), (640, 300)]), colour).save(path)
    references = [
        f"A {colour} {thing} {place} .", f"There is one {thing} , it is {colour} .", f"{thing} {place}",
        f"The {thing} in the middle is {colour} , seen from afar on a bright and quiet day .",
        f"A scene with a {colour} {thing} .",
    ]  # fmt: skip
    score, base = rng.betavariate(4, 2) * 4, rng.betavariate(1.2, 5) * 3
    return {
        "image_id": path.name, "path": str(path), "caption": f"a {colour} {thing} stands {place}",
        "zero_shot_caption": f"an image of a {rng.choice(THINGS)}",
        **{f"reference_{number}": text for number, text in enumerate(references, 1)},
        "license": "CC BY 4.0" if int(path.stem) % 3 == 0 else "", "bleu_4": score / 5, "cider_d": score,
        "rouge_l": score / 4.2, "zero_shot_bleu_4": base / 6, "zero_shot_cider_d": base,
        "zero_shot_rouge_l": base / 4,
    }  # fmt: skip
