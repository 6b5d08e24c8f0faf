"""report.html: scores, curves and captioned images of a run in one file that opens anywhere, offline.

The file fetches nothing, and no data can become code: the template escapes every string, and the page's own
policy runs only the one script and style whose hashes it names.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from src.report.figures import draw_curves, inline_svg
from src.report.run_files import Prediction, RunFiles, random_order, read_run
from src.report.scores import METRICS, format_number, other_scores, score_rows
from src.utils.files import atomic_write
from src.utils.logging import visible

FOLDER = Path(__file__).parent
ASSETS = ("cross_attention_maps", "report")  # style and script; the first also serve the page of src.app
CARD_SCORES = ("cider_d", "bleu_4", "rouge_l")
# title, curve, sizes in inches for a wide screen and for a phone
CHARTS = (
    ("Loss, nats per token", "loss", ((12, 4.2), (3.6, 3.2))),
    ("CIDEr-D on validation images", "cider_d", ((12, 3.4), (3.6, 2.8))),
)
MAX_IMAGES = 200
PER_VIEW = 24
RANKED_BY = ("cider_d", "rouge_l", "bleu_4", "bleu_1")
LONGEST_SIDE = 384  # pixels
MAX_BYTES = 50_000  # of an image: 200 of them stay under 15 MB, base64 and captions included
SHRINKING = (
    (1.0, 82),
    (1.0, 68),
    (0.8, 60),
    (0.6, 50),
    (0.4, 40),
)  # fraction of the longest side, JPEG quality
# view -> heading, text of an empty view
VIEWS = {
    "random": ("Random", "No image was captioned."),
    "best": ("Best", "No image has a score."),
    "worst": ("Worst", "No image has a score."),
    "improved": ("Most improved", "No image gained from fine-tuning."),
    "harmed": ("Most harmed", "No image lost by fine-tuning."),
}


def write_report(run_dir: Path) -> Path:
    """Write report.html into a run folder from the folder's own files; what is missing is noted in the report."""
    run = read_run(Path(run_dir))
    path = run.folder / "report.html"
    with atomic_write(path) as file:
        file.write(render(run))
    return path


def render(run: RunFiles) -> str:
    """Return the report as HTML. Adds to `run.notes` what turns out to be missing."""
    ranks, metric = choose_images(run.predictions)
    cards = [_card(run.predictions[row], ranks[row], metric) for row in sorted(ranks)]
    if unreadable := [card for card in cards if card["thumbnail"] is None]:
        note = "images could not be read; their captions are shown alone."
        run.notes.append(f"{len(unreadable)} of {len(cards)} {note}")
    ids = [card["row"].image_id for card in cards]
    is_compared = any(card["gain"] is not None for card in cards)
    views = list(VIEWS)[: 5 if is_compared else 3 if metric else 1]
    style, script = (
        "\n".join((FOLDER / f"{asset}.{kind}").read_text(encoding="utf-8") for asset in ASSETS)
        for kind in ("css", "js")
    )
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_escape_controls,
    )  # fmt: skip
    environment.filters["number"] = format_number
    return environment.get_template("report.html.jinja").render(
        run=run, policy=content_policy(style, script), style=Markup(style), script=Markup(script),
        rows=score_rows(run.metrics), others=other_scores(run.metrics),
        charts=_charts(run), cards=cards,
        maps={number: run.attention[name] for number, name in enumerate(ids) if name in run.attention},
        views={name: VIEWS[name] for name in views},
        counts={view: sum(view in card["ranks"] for card in cards) for view in VIEWS},
        ranked_by=METRICS[metric][0] if metric else None,
        num_references=sorted({len(row.references) for row in run.predictions}),
    )  # fmt: skip


def choose_images(predictions: Sequence[Prediction]) -> tuple[dict[int, dict[str, int]], str | None]:
    """Choose at most MAX_IMAGES images.

    Returns the ranks, from 0, of each chosen row in the views that it belongs to, and the score that ranked them
    (None without any). All images are chosen where they fit; else the views' images and a random sample of the
    others. The random view is a fair sample of all, whatever else is shown.
    """
    metric = next((name for name in RANKED_BY if any(name in row.scores for row in predictions)), None)
    order = random_order(len(predictions))
    views = {"random": order} | (_ranked(predictions, metric) if metric else {})
    ranks: dict[int, dict[str, int]] = {}
    for view, rows in views.items():
        for rank, row in enumerate(rows[:PER_VIEW]):
            ranks.setdefault(row, {})[view] = rank
    for row in order[:MAX_IMAGES]:
        if len(ranks) < MAX_IMAGES:
            ranks.setdefault(row, {})
    return ranks, metric


def _ranked(predictions: Sequence[Prediction], metric: str) -> dict[str, list[int]]:
    """Return row numbers by view, best, worst, most improved or most harmed first."""
    value = {row: one.scores[metric] for row, one in enumerate(predictions) if metric in one.scores}
    gain = {row: found for row in value if (found := _gain(predictions[row], metric)) is not None}
    best = sorted(value, key=lambda row: (-value[row], row))
    rising = sorted(gain, key=lambda row: (-gain[row], row))
    return {
        "best": best,
        "worst": best[::-1],
        "improved": [row for row in rising if gain[row] > 0],
        "harmed": [row for row in rising[::-1] if gain[row] < 0],
    }


def _gain(prediction: Prediction, metric: str | None) -> float | None:
    """Return what fine-tuning added to an image's score, None where either model was not scored."""
    tuned, base = (prediction.scores.get(f"{prefix}{metric}") for prefix in ("", "zero_shot_"))
    return None if tuned is None or base is None else tuned - base


def _card(row: Prediction, ranks: dict[str, int], metric: str | None) -> dict[str, Any]:
    """Return what the template needs of one image."""
    names = [name for name in CARD_SCORES if name in row.scores or f"zero_shot_{name}" in row.scores]
    pixels = row.pixels()
    tuned, base = ([row.scores.get(prefix + name) for name in names] for prefix in ("", "zero_shot_"))
    return {
        "row": row, "ranks": ranks, "gain": _gain(row, metric),
        "thumbnail": None if pixels is None else thumbnail(pixels),
        "score_names": [METRICS[name][0] for name in names], "tuned_scores": tuned, "base_scores": base,
    }  # fmt: skip


def thumbnail(pixels: np.ndarray, longest_side: int = LONGEST_SIDE, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Encode pixels uint8 (H,W,3) as a JPEG within both limits, as far as its quality allows.

    Returns {"uri": a data URI, "width", "height" in pixels}.
    """
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    for fraction, quality in SHRINKING:
        side = round(longest_side * fraction)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() <= max_bytes:
            break
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "width": image.width, "height": image.height}


def _charts(run: RunFiles) -> list[tuple[str, Markup]]:
    """Return (title, SVG for a wide and for a narrow screen) of the curves that the run logged."""
    charts = []
    for title, name, sizes in CHARTS:
        figures = zip((draw_curves(run.history, name, size) for size in sizes), ("wide", "narrow"), strict=True)
        label = f"{title}, over optimizer steps"
        svgs = [inline_svg(figure, label, f"chart {width}") for figure, width in figures if figure]
        charts += [(title, Markup("\n".join(svgs)))] if svgs else []
    return charts


def _escape_controls(value: Any) -> Any:
    return visible(value, keep="\t\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def content_policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy under which only this style and script count and nothing is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )
