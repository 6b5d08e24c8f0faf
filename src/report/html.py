"""report.html: scores, curves and captioned images of a run in one file that opens anywhere, offline.

The file fetches nothing, and no data can become code: the template escapes every string, and the page's own
policy runs only the one script and style whose hashes it names.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.report.curves import draw_losses, draw_scores, inline_svg
from src.report.gallery import VIEWS, Shown, choose_images, gain_of, thumbnail
from src.report.run_files import RunFiles, read_run
from src.report.scores import METRICS, format_number, other_scores, score_rows
from src.utils.files import atomic_write
from src.utils.logging import visible

FOLDER = Path(__file__).parent
ASSETS = ("cross_attention_maps", "report")  # style and script; the first also serve the page of src.app
CARD_SCORES = ("cider_d", "bleu_4", "rouge_l")
CURVES = (
    ("Loss, nats per token", draw_losses, ((12, 4.2), (3.6, 3.2))),
    ("CIDEr-D on validation images", draw_scores, ((12, 3.4), (3.6, 2.8))),
)  # each for a wide screen and for a phone, in inches


def write_report(run_dir: Path) -> Path:
    """Write report.html into a run folder from the folder's own files; what is missing is noted in the report.

    Raises:
        OSError: the folder cannot be written.
    """
    run = read_run(Path(run_dir))
    path = run.folder / "report.html"
    with atomic_write(path) as file:
        file.write(render(run))
    return path


def render(run: RunFiles) -> str:
    """Return the report as HTML. Adds to `run.notes` what turns out to be missing."""
    shown, metric = choose_images(run.predictions)
    cards = [_card(index, image, metric) for index, image in enumerate(shown)]
    num_unreadable = sum(card["thumbnail"] is None for card in cards)
    if num_unreadable:
        run.notes.append(
            f"{num_unreadable} of {len(cards)} images could not be read; their captions are shown alone."
        )
    ids = [image.prediction.image_id for image in shown]
    maps = {index: run.attention[image_id] for index, image_id in enumerate(ids) if image_id in run.attention}
    style, script = (
        "\n".join((FOLDER / f"{asset}.{kind}").read_text(encoding="utf-8") for asset in ASSETS)
        for kind in ("css", "js")
    )
    versions = run.about.get("versions")
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_escape_controls,
    )  # fmt: skip
    return environment.get_template("report.html.jinja").render(
        run=run, policy=content_policy(style, script), style=Markup(style), script=Markup(script),
        rows=score_rows(run.metrics, run.split), others=other_scores(run.metrics, run.split),
        charts=_charts(run), cards=cards, maps=maps,
        maps_json=script_json({index: _map(entry) for index, entry in maps.items()}),
        views=_views(metric, any(card["gain"] is not None for card in cards)),
        counts={view: sum(view in image.ranks for image in shown) for view in VIEWS},
        ranked_by=METRICS[metric][0] if metric else None, facts=facts(run),
        versions=list(versions.items()) if isinstance(versions, dict) else [],
    )  # fmt: skip


def _charts(run: RunFiles) -> list[tuple[str, Markup]]:
    """Return (title, SVG for a wide and for a narrow screen) of the curves that the run logged."""
    charts = []
    for title, draw, sizes in CURVES:
        figures = [draw(run.history, size) for size in sizes]
        if None not in figures:
            pairs = zip(figures, ("chart wide", "chart narrow"), strict=True)
            svgs = [inline_svg(figure, f"{title}, over optimizer steps", css) for figure, css in pairs]  # type: ignore[arg-type]
            charts.append((title, Markup("\n".join(svgs))))
    return charts


def _views(metric: str | None, is_compared: bool) -> dict[str, tuple[str, str]]:
    """Return the views that this run can fill: ranks need a score, gains a base to compare with."""
    possible = {
        "random": True,
        "best": metric,
        "worst": metric,
        "improved": is_compared,
        "harmed": is_compared,
    }
    return {name: view for name, view in VIEWS.items() if possible[name]}


def _escape_controls(value: Any) -> Any:
    return visible(value, keep="\t\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def _card(index: int, shown: Shown, metric: str | None) -> dict[str, Any]:
    """Return what the template needs of one image."""
    row = shown.prediction
    names = [name for name in CARD_SCORES if name in row.scores or f"zero_shot_{name}" in row.scores]
    gain = gain_of(row, metric) if metric else None
    pixels = row.pixels()
    tuned, base = (
        ["\u2013" if (value := row.scores.get(prefix + name)) is None else f"{value:.2f}" for name in names]
        for prefix in ("", "zero_shot_")
    )
    return {
        "index": index, "row": row, "ranks": shown.ranks, "gain": gain,
        "thumbnail": None if pixels is None else thumbnail(pixels),
        "gain_text": None if gain is None else f"{gain:+.2f}".replace("-", "\u2212"),
        "score_names": [METRICS[name][0] for name in names], "tuned_scores": tuned, "base_scores": base,
    }  # fmt: skip


def _map(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {name: entry[name] for name in ("height", "width", "region", "heat")}
    return {"words": [visible(word) for word in entry["words"]]} | kept


def script_json(value: Any) -> Markup:
    """Return JSON that can stand inside a script element: it can neither end the element nor open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def content_policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy under which only this style and script count and nothing is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )


def facts(run: RunFiles) -> list[tuple[str, str]]:
    """Return (name, value) of what identifies the run, without what is unknown."""
    about, metrics = run.about, run.metrics
    counts = sorted({len(row.references) for row in run.predictions})
    commit, changed = about.get("commit"), about.get("changed_files")

    def count(key: str, unit: str = "") -> str:
        return f"{metrics[key]:,.0f}{unit}" if key in metrics else ""

    found = [
        ("Split", run.split),
        ("Images scored", f"{len(run.predictions):,}" if run.predictions else ""),
        ("References per image", " to ".join(str(end) for end in dict.fromkeys((counts[0], counts[-1])))
         if counts else ""),
        ("Seed", about.get("seed")),
        ("Machine", about.get("machine")),
        ("Commit", f"{commit}, {changed} files changed" if commit and changed else commit),
        ("Started", str(about.get("started") or "").replace("T", " ")[:19]),
        ("Training time", count("time/fit_seconds", " s")),
        ("Rows skipped in the data", count("data/skipped_rows")),
        ("Images unreadable during the run", count("data/unreadable_images")),
        ("Best validation loss", format_number(metrics["val/loss_best"]) if "val/loss_best" in metrics else ""),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in found if value not in (None, "")]
