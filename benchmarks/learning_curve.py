"""Would more images help? Loss and CIDEr-D over the number of captions: `python -m benchmarks.learning_curve`.

Each point is a run of train.py with `datamodule.num_samples`, about as many optimizer steps as the largest one, scored
on the test images of all data: an image's split does not depend on the number. Finished runs are not repeated.
"""

import os
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks import common
from benchmarks.ablation import run_once
from src.evaluate import loss_score, read_losses
from src.metrics.bootstrap import Score, difference, intervals
from src.report.run_files import read_metrics, read_predictions


def run(out: Path, base: list[str], number: int, largest: int, seed: int) -> Path:
    """Train on a number of captions and score the best checkpoint; return the folder with the scores."""
    epochs, repeats = common.compose_config(*base).trainer.max_epochs, max(1, round(largest / number))
    lengths = [f"trainer.max_epochs={epochs * repeats}", f"trainer.check_val_every_n_epoch={repeats}"]
    trained, scored = out / str(number) / str(seed), out / str(number) / f"{seed}-all"
    data = f"datamodule.num_samples={number}"
    run_once(trained, ["train.py", *base, *lengths, data, f"seed={seed}"], os.environ)
    run_once(scored, ["eval.py", f"ckpt_path={trained}", "datamodule.num_samples=null"], os.environ)
    return scored


def loss(folder: Path) -> Score:
    """Return the loss of a run as a score of its test images."""
    losses = read_losses(read_predictions(folder / "predictions.csv"))
    return loss_score(sorted(losses), losses)["loss"]


def answer(numbers: list[int], folders: list[Path]) -> str:
    """Return one sentence, by the paired interval of the loss between the two largest numbers."""
    gain = difference(loss(folders[-1]), loss(folders[-2]))
    assert gain is not None  # a loss has statistics
    low, high = intervals({"loss": gain})["loss"]
    change = f"{gain.corpus:+.3f} nats/token (95% interval {low:+.3f} to {high:+.3f})"
    helps = "yes: the loss still falls" if high < 0 else "no: the loss falls no further by a clear margin"
    return f"Would more images help? From {numbers[-2]:,} to {numbers[-1]:,} captions {change}; {helps}."


def plot(path: Path, numbers: list[int], found: list[dict[str, float]]) -> None:
    """Draw loss and CIDEr-D over the number of captions."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    panels = zip(figure.subplots(1, 2), ("test/loss", "test/cider_d"), ("loss, nats/token", "CIDEr-D"), strict=True)
    for axes, name, label in panels:
        axes.plot(numbers, [one[name] for one in found], "o-")
        axes.set(xscale="log", xlabel="captions", ylabel=label)
        axes.set_xticks(numbers, [f"{number:,}" for number in numbers], minor=False)
        axes.minorticks_off()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = common.plain_parser(__doc__)
    parser.add_argument("overrides", nargs="*", default=["experiment=demo"], help="of train.py")
    parser.add_argument("--num-samples", type=int, nargs="+", default=[1000, 2000, 4000, 8000], help="captions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=common.ROOT / "logs" / "learning_curve", help="folder of the runs")
    options = parser.parse_args()
    common.silence()
    numbers, out = sorted(options.num_samples), options.out.resolve()
    folders = [run(out, options.overrides, number, numbers[-1], options.seed) for number in numbers]
    found = [read_metrics(folder / "metrics.json") for folder in folders]
    names = ["test/loss", "test/cider_d", "test/bleu_4"]
    rows = [[f"{number:,}", *(one.get(name) for name in names)] for number, one in zip(numbers, found, strict=True)]
    common.report("Learning curve", ["captions", *names], rows, dict(zip(map(str, numbers), found, strict=True)))
    plot(out / "learning_curve.png", numbers, found)
    print(answer(numbers, folders), out / "learning_curve.png")


if __name__ == "__main__":
    main()
