"""Print a table of runs: python -m src.runs [sort=test/cider_d], or two runs side by side: compare=A,B

dir=logs                 folder that is searched for metrics.json files
sort=test/cider_d        metric to sort by, best first
columns=val/loss_best,test/cider_d   metrics to show
compare=A,B              two run folders with the same test images: scores, and B less A with paired 95% intervals
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from src.report.run_files import DAMAGED, RunFiles, read_config, read_json_object, read_metrics, read_predictions
from src.utils.entry import parse_command, run_command
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
COLUMNS = "val/loss_best,test/loss,test/bleu_4,test/cider_d"
DEFAULTS = {"dir": "logs", "sort": "test/cider_d", "columns": COLUMNS, "compare": ""}
TEXT = ("run", "status", "data", "images", "test_set", "overrides")
LOWER_IS_BETTER = ("loss", "seconds", "skipped", "unreadable", "perplexity")


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    settings = parse_command(arguments, DEFAULTS)
    if settings["compare"]:
        print(compare([Path(name) for name in settings["compare"].split(",")]).to_string())
        return
    columns, metric, folder = settings["columns"].split(","), settings["sort"], Path(settings["dir"])
    print_table(sort_runs(read_runs(folder), metric), columns if metric in columns else [metric, *columns])
    unscored = Counter(
        str((RunFiles(file.parent).read("run.json", read_json_object) or {}).get("status", "unreadable"))
        for file in folder.rglob("run.json") if not file.with_name("metrics.json").exists()
    )  # fmt: skip
    if unscored:
        print("without scores:", ", ".join(f"{count} {status}" for status, count in sorted(unscored.items())))


def read_runs(folder: Path) -> pd.DataFrame:
    """Return one row per run below a folder, unreadable ones are logged.

    Columns: run, status, data (name of the folder), images (of the test), test_set (equal for equal images), overrides
    (a list), metrics.
    """
    rows = []
    for file in sorted(folder.rglob("metrics.json")):
        run = RunFiles(file.parent)
        metrics = run.read("metrics.json", read_metrics)
        if not metrics:
            log.warning("%s skipped: %s", file.parent, *(run.notes or ["metrics.json holds no numbers"]))
            continue
        status = str((run.read("run.json", read_json_object) or {}).get("status", ""))
        lines = (run.read(".hydra/overrides.yaml", Path.read_text) or "").splitlines()
        overrides = [line[2:] for line in lines if line.startswith("- ")]  # Hydra writes a YAML list of strings
        name = file.parent.relative_to(folder).as_posix().replace("runs/", "")
        config = run.read("config_resolved.yaml", read_config) or {}
        data = Path(str(config.get("datamodule.dataset") or config.get("datamodule.data_dir") or "-")).name
        ids = frozenset(row.image_id for row in run.read("predictions.csv", read_predictions) or ())
        test = {"data": data, "images": int(metrics.get("data/test_images", len(ids))), "test_set": hash(ids)}
        rows.append({"run": name, "status": status, **test, "overrides": overrides, **dict(sorted(metrics.items()))})
    if not rows:
        raise UserError(f"dir={folder} holds no metrics.json; expected finished runs; run train.py first")
    return pd.DataFrame(rows)


def sort_runs(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Sort best first; runs without the metric come last, and a UserError where no run has it."""
    if metric not in runs:
        raise UserError(
            f"sort={metric} is in no run; expected one of {', '.join(runs.columns[len(TEXT) :])}; set sort=METRIC"
        )
    return runs.sort_values(metric, ascending=any(word in metric for word in LOWER_IS_BETTER), kind="stable")


def compare(folders: Sequence[Path]) -> pd.DataFrame:
    """Score the predictions.csv of runs A and B anew: one row per metric with A, B and B less A, paired by image.

    UserError unless these are two readable files with the same test images and references.
    """
    from src.evaluate import loss_score, read_losses
    from src.metrics.scorer import CaptionScorer
    from src.report.scores import score_table

    try:
        runs = [sorted(read_predictions(one / "predictions.csv"), key=lambda row: row.image_id) for one in folders]
    except DAMAGED as error:
        raise UserError(f"compare: {error}; expected two run folders with predictions.csv; set compare=A,B") from error
    data = [[(row.image_id, row.references) for row in rows] for rows in runs]
    if len(data) != 2 or data[0] != data[1]:
        found = " and ".join(f"{len(rows)} of {folder}" for folder, rows in zip(folders, runs, strict=True))
        raise UserError(f"compare: test images {found}; expected two runs with the same ones; set compare=A,B")
    ids, references = zip(*data[0], strict=True)
    scorer = CaptionScorer()
    a, b = (
        scorer.score(ids, [row.caption for row in rows], references, others=loss_score(ids, read_losses(rows)))
        for rows in runs
    )
    metrics = a.flat("zero_shot/test/") | b.flat("test/") | scorer.gains(b, a).flat("test/")
    return score_table(metrics).set_axis([*map(str, folders), "difference"], axis="columns")


def print_table(runs: pd.DataFrame, columns: Sequence[str]) -> None:
    """Print a line per run, those of one test set together: name, data, metrics, overrides in which the runs differ."""
    shared = set.intersection(*map(set, runs["overrides"])) if len(runs) > 1 else set()
    table = Table("run", "data", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("images", *columns):
        table.add_column(column.replace("/", "/\n"), justify="right", no_wrap=True)
    table.add_column("overrides", no_wrap=True, overflow="ellipsis")
    for _, group in runs.reindex(columns=[*TEXT, *columns]).groupby("test_set", sort=False):
        for run in group.to_dict("records"):
            own = [override for override in run["overrides"] if override not in shared]
            ended = [] if run["status"] in ("finished", "") else [f"({run['status']})"]
            values = ("-" if pd.isna(run[column]) else f"{run[column]:.3f}" for column in columns)
            table.add_row(run["run"], run["data"], str(run["images"]), *values, " ".join(ended + own))
        table.add_section()
    console = Console(markup=False, emoji=False)
    console.print(table, width=None if console.is_terminal else 100)


if __name__ == "__main__":
    run_command(main, sys.argv[1:], __doc__)
