"""report.html: scores, curves and captioned images of a run in one file that opens anywhere, offline.

The file fetches nothing, and no data can become code: the template escapes every string, and the page's own
policy runs only the one script and style whose hashes it names.
"""

import base64
import hashlib
import io
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from src.report.figures import draw_curves, svg_uri
from src.report.run_files import Prediction, RunFiles, random_order, read_run, tidy
from src.report.scores import METRICS, number, other_scores, score_rows
from src.utils.files import atomic_write
from src.utils.logging import visible

FOLDER = Path(__file__).parent
ASSETS = ("cross_attention_maps", "report")  # style and script; the first also serve the page of src.app
CARD_SCORES = ("cider_d", "bleu_4", "rouge_l")
# title, curve, sizes in inches for a wide screen and for a phone
CHARTS = (
    ("Loss, nats per token", "loss", (12, 4.2), (3.6, 3.2)),
    ("CIDEr-D on validation images", "cider_d", (12, 3.4), (3.6, 2.8)),
)
MAX_IMAGES = 200
PER_VIEW = 24
LONGEST_SIDE = 384  # pixels; 200 images are about 5 MB
RANKED_BY = ("cider_d", "rouge_l", "bleu_4", "bleu_1")
TRAINED = {"cross_attention": "cross-attention", "lora": "LoRA adapters", "full": "all weights"}
FACTS = {  # label -> key of config_resolved.yaml, run.json or metrics.json
    "Learning rate": "model.optimizer.lr", "Device": "device", "Machine": "machine", "Precision": "precision",
    "Images per step": "datamodule.batch_size", "Training time, seconds": "time/fit_seconds",
    "Best validation loss": "val/loss_best", "Best validation CIDEr-D": "val/cider_d_best",
    "Rows skipped in the data": "data/skipped_rows", "Images unreadable during the run": "data/unreadable_images",
    "Seed": "seed", "Started": "started", "Commit": "commit",
}  # fmt: skip
VIEWS = {"random": "Random", "best": "Best", "worst": "Worst", "improved": "Most improved", "harmed": "Most harmed"}


def write_report(run_dir: Path) -> Path:
    """Write report.html into a run folder from the folder's own files; what is missing is noted in the report."""
    run = read_run(run_dir)
    ranks, metric = choose_images(run.predictions, run.attention)
    rows = sorted(ranks)
    cards = [_card(run.predictions[row], ranks[row], metric) for row in rows]
    if unreadable := sum(card["thumbnail"] is None for card in cards):
        notes = f"{unreadable:,} of {count(len(cards), 'image')} could not be read; their captions are shown alone."
        run.notes.append(notes)
    maps = {number: run.attention.get(run.predictions[row].image_id) for number, row in enumerate(rows)}
    charts = [(title, [draw_curves(run.history, name, size, 3) for size in sizes]) for title, name, *sizes in CHARTS]
    is_compared = any(card["gain"] is not None for card in cards)
    views = list(VIEWS.items())[: 5 if is_compared else 3 if metric else 1]
    style, script = (
        "\n".join((FOLDER / f"{name}.{kind}").read_text("utf-8") for name in ASSETS) for kind in ("css", "js")
    )
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    loader = FileSystemLoader(FOLDER)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_escape_controls
    )
    environment.filters |= {"number": number, "svg_uri": svg_uri, "tidy": tidy}
    page = environment.get_template("report.html.jinja").render(
        run=run,
        count=count,
        facts=run_facts(run),
        is_synthetic="synthetic" in str(run.config.get("datamodule._target_")),
        hero=[
            (k, card)
            for k, card in enumerate(cards)
            if card["thumbnail"] and maps[k] and card["ranks"].get("random", 99) < 3
        ],
        style=Markup(style),
        script=Markup(script),
        hashes=hashes,
        rows=score_rows(run.metrics),
        others=other_scores(run.metrics),
        charts=charts,
        cards=cards,
        card_scores={name: METRICS[name][0] for name in CARD_SCORES},
        maps={number: entry for number, entry in maps.items() if entry},
        views=dict(views),
        ranked_by=METRICS[metric][0] if metric else None,
    )
    path = run_dir / "report.html"
    with atomic_write(path) as file:
        file.write(page)
    return path


def choose_images(
    predictions: Sequence[Prediction], mapped: Container[str] = ()
) -> tuple[dict[int, dict[str, int]], str | None]:
    """Choose at most MAX_IMAGES images: those of the views, and a random sample of the others.

    Returns the ranks, from 0, of each chosen row in the views that it belongs to, and the score that ranked them
    (None without any). The random view shows images with attention maps (their ids: mapped), where there are any:
    they are a fair sample of all, as `random_order` chose them.
    """
    metric = next((name for name in RANKED_BY if any(name in row.scores for row in predictions)), None)
    value = {row: one.scores[metric] for row, one in enumerate(predictions) if metric in one.scores}
    gain = {row: found for row in value if (found := _gain(predictions[row], metric)) is not None}
    best, rising = (sorted(found, key=lambda row: -found[row]) for found in (value, gain))
    order = random_order(len(predictions))
    with_map = [row for row in order if predictions[row].image_id in mapped and Path(predictions[row].path).is_file()]
    views = {
        "random": with_map or order,
        "best": best,
        "worst": best[::-1],
        "improved": [row for row in rising if gain[row] > 0],
        "harmed": [row for row in rising[::-1] if gain[row] < 0],
    }
    ranks: dict[int, dict[str, int]] = {}
    for view, rows in views.items():
        for rank, row in enumerate(rows[:PER_VIEW]):
            ranks.setdefault(row, {})[view] = rank
    for row in order[:MAX_IMAGES]:
        if len(ranks) < MAX_IMAGES:
            ranks.setdefault(row, {})
    return ranks, metric


def _gain(prediction: Prediction, metric: str | None) -> float | None:
    tuned, base = (prediction.scores.get(f"{prefix}{metric}") for prefix in ("", "zero_shot_"))
    return None if tuned is None or base is None else tuned - base


def _card(row: Prediction, ranks: dict[str, int], metric: str | None) -> dict[str, Any]:
    small = None if (pixels := row.pixels()) is None else thumbnail(pixels)
    return {"row": row, "ranks": ranks, "gain": _gain(row, metric), "thumbnail": small}


def thumbnail(pixels: np.ndarray, longest_side: int = LONGEST_SIDE) -> dict[str, Any]:
    """Encode pixels uint8 (H,W,3) as a JPEG: {"uri": a data URI, "width", "height" in pixels}."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=75, optimize=True, progressive=True)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "width": image.width, "height": image.height}


def _escape_controls(value: Any) -> Any:
    return visible(value, keep="\t\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def count(amount: int, noun: str) -> str:
    """Write a number of things: `1 image`, `1,200 images`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def data_name(config: dict[str, Any]) -> str:
    """Name the data of a config (dotted keys): their kind, and their hub id or folder."""
    kind = str(config.get("datamodule._target_", "")).rpartition(".")[2].removesuffix("DataModule")
    return ", ".join(filter(None, (kind, _last(config.get("datamodule.dataset") or config.get("datamodule.data_dir")))))


def _last(path: str | None) -> str:
    """Shorten a folder of the machine to its name; a hub id stays."""
    return Path(path).name if path and path[0] in "/$" else path or ""


def run_facts(run: RunFiles) -> dict[str, str]:
    """Return what is known of a run by label, in the order in which a reader asks."""
    config = run.config if "train" in run.config else {}
    known: dict[str, Any] = {"device": config.get("trainer.accelerator"), "precision": config.get("trainer.precision")}
    known |= config | {key: value for key, value in run.about.items() if value is not None}
    splits = {"train": "data/train_images", "validation": "data/val_images", "test": "data/test_images"}
    blocks = f"last {count(config.get('model.num_layers_to_train') or 0, 'block')} of encoder and decoder"
    facts = {
        "Base model": _last(config.get("model.checkpoint") or config.get("model.from_encoder_decoder.encoder")),
        "Data": data_name(config),
        "Images": ", ".join(f"{run.metrics[key]:,.0f} {name}" for name, key in splits.items() if key in run.metrics),
        "Epochs": str(len({row.get("epoch") for row in run.history if "train/loss" in row}) or ""),
        "Trained": TRAINED.get(config["model.train"], blocks) if "model.train" in config else "",
    }
    known |= {key: f"{value:.0f}" if value.is_integer() else number(value) for key, value in run.metrics.items()}
    facts |= {label: str(known[key]) for label, key in FACTS.items() if known.get(key) is not None}
    return {label: value for label, value in facts.items() if value}
