"""report.html: scores, curves and captioned pictures of a run in one file that opens anywhere, offline.

Nothing in it reaches out, and nothing that comes from data can become code: the template escapes every
string, and the page's own policy runs only the one script and style whose hashes it names.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.report.chart import loss_charts, score_charts
from src.report.gallery import VIEWS, Shown, choose_pictures, gain_of
from src.report.printable import printable
from src.report.run_files import RunFiles, read_run
from src.report.scores import METRICS, number, other_scores, score_rows
from src.report.thumbnails import thumbnail
from src.utils.files import atomic_write

FOLDER = Path(__file__).parent
PARTS = ("cross_attention_maps", "report")  # of style and script; the first also serve the page of src.app
CARD_SCORES = ("cider_d", "bleu_4", "rouge_l")


def write_report(run_dir: Path) -> Path:
    """Write report.html into a run folder from the folder's own files; what is missing is told in the report.

    Raises:
        OSError: the folder cannot be written.
    """
    run = read_run(Path(run_dir))
    path = run.folder / "report.html"
    with atomic_write(path) as file:
        file.write(render(run))
    return path


def render(run: RunFiles) -> str:
    """The report as HTML. Adds to `run.notes` what turns out to be missing on the way."""
    shown, metric = choose_pictures(run.predictions)
    cards = [_card(index, picture, metric) for index, picture in enumerate(shown)]
    lost = sum(card["thumbnail"] is None for card in cards)
    if lost:
        run.notes.append(
            f"{lost} of {len(cards)} pictures could not be read; their captions are shown alone."
        )
    ids = [picture.prediction.image_id for picture in shown]
    maps = {index: run.attention[name] for index, name in enumerate(ids) if name in run.attention}
    style, script = (
        "\n".join((FOLDER / f"{part}.{kind}").read_text(encoding="utf-8") for part in PARTS)
        for kind in ("css", "js")
    )
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_printable,
    )  # fmt: skip
    return environment.get_template("report.html.jinja").render(
        run=run, policy=content_policy(style, script), style=Markup(style), script=Markup(script),
        rows=score_rows(run.metrics, run.split), others=other_scores(run.metrics, run.split),
        charts=[pair for pair in (loss_charts(run.history), score_charts(run.history)) if pair],
        cards=cards, maps=maps, maps_json=script_json({i: _map(entry) for i, entry in maps.items()}),
        views=_views(metric, any(card["gain"] is not None for card in cards)),
        counts={view: sum(view in picture.ranks for picture in shown) for view in VIEWS},
        ranked_by=METRICS[metric][0] if metric else None, facts=facts(run), versions=versions(run),
    )  # fmt: skip


def _views(metric: str | None, compared: bool) -> dict[str, tuple[str, str]]:
    """The views that this run can fill: ranks need a score, gains a base to compare with."""
    possible = {"random": True, "best": metric, "worst": metric, "improved": compared, "harmed": compared}
    return {name: view for name, view in VIEWS.items() if possible[name]}


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _card(index: int, shown: Shown, metric: str | None) -> dict[str, Any]:
    """What the template needs of one picture."""
    row = shown.prediction
    names = [name for name in CARD_SCORES if name in row.scores or f"zero_shot_{name}" in row.scores]
    gain = gain_of(row, metric) if metric else None
    return {
        "index": index, "row": row, "ranks": shown.ranks, "thumbnail": thumbnail(row),
        "gain": gain, "gain_text": None if gain is None else f"{gain:+.2f}".replace("-", "\u2212"),
        "score_names": [METRICS[name][0] for name in names],
        "tuned_scores": [_cell(row.scores.get(name)) for name in names],
        "base_scores": [_cell(row.scores.get(f"zero_shot_{name}")) for name in names],
    }  # fmt: skip


def _cell(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.2f}"


def _map(entry: dict[str, Any]) -> dict[str, Any]:
    return {"words": [printable(word) for word in entry["words"]]} | {
        name: entry[name] for name in ("height", "width", "region", "heat")
    }


def script_json(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def content_policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which only this style and script count and nothing is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )


def facts(run: RunFiles) -> list[tuple[str, str]]:
    """(name, value) of what identifies the run, without what is not known."""
    about, metrics = run.about, run.metrics
    references = [len(row.references) for row in run.predictions]
    span = "" if not references else f"{min(references)}" + (
        f" to {max(references)}" if max(references) > min(references) else "")  # fmt: skip
    found = [
        ("Split", run.split),
        ("Pictures scored", f"{len(run.predictions):,}" if run.predictions else ""),
        ("References a picture", span),
        ("Seed", about.get("seed")),
        ("Machine", about.get("machine")),
        ("Commit", _commit(about)),
        ("Started", str(about.get("started") or "").replace("T", " ")[:19]),
        ("Training took", _count(metrics.get("time/fit_seconds"), " s")),
        ("Rows skipped in the data", _count(metrics.get("data/skipped_rows"))),
        ("Pictures broken during the run", _count(metrics.get("data/unreadable_images"))),
        ("Best validation loss", number(metrics["val/loss_best"]) if "val/loss_best" in metrics else ""),
    ]
    return [(name, str(value)) for name, value in found if value not in (None, "")]


def _count(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:,.0f}{unit}"


def _commit(about: dict[str, Any]) -> str:
    """The commit, and how many files differed from it: the commit alone cannot repeat such a run."""
    changed, commit = about.get("changed_files"), about.get("commit")
    return f"{commit}, {changed} files changed" if commit and changed else commit or ""


def versions(run: RunFiles) -> list[tuple[str, str]]:
    """(package, version) as run.json has them."""
    found = run.about.get("versions")
    return [(str(name), str(version)) for name, version in found.items()] if isinstance(found, dict) else []
