"""The README's figures, from what a run leaves."""

import runpy
import sys

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from src.report.figures import draw_captions, main
from src.report.histograms import read_ridges
from src.report.run_files import read_predictions
from src.utils.errors import UserError
from tests.report.fake_run import make_run

NAMES = [
    f"h.11.{part}.weight"
    for part in ("attn.c_attn", "attn.c_proj", "cross.q_attn", "mlp.c_fc", "mlp.c_proj", "ln", "x")
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "run", pictures=5)
    writer = SummaryWriter(str(folder / "tensorboard"))
    for half in ("encoder", "decoder"):
        for name in NAMES:
            for epoch in range(3):
                values = torch.randn(
                    20 if ".ln" in name else 4000, generator=torch.Generator().manual_seed(epoch)
                )
                writer.add_histogram(f"weights/{half}/{name}", values * (1 + epoch), epoch)
    writer.add_histogram("gradients/decoder/h.11.ln.weight", torch.zeros(3), 0)
    writer.close()
    return folder


def test_one_command_draws_all(run, tmp_path):
    written = main([f"run_dir={run}", f"out={tmp_path / 'figures'}"])
    names = ["losses.png", "encoder_weights.png", "decoder_weights.png", "captions.png"]
    assert [path.name for path in written] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_the_largest_weights_are_read_with_every_epoch(run):
    ridges = read_ridges(run / "tensorboard", "decoder")
    assert [ridge.name for ridge in ridges] == [
        "attn.c_attn.weight", "attn.c_proj.weight", "cross.q_attn.weight",
        "mlp.c_fc.weight", "mlp.c_proj.weight", "x.weight",
    ]  # fmt: skip
    for ridge in ridges:
        assert ridge.epochs == [0, 1, 2]
        width = ridge.centres[1] - ridge.centres[0]
        areas = [sum(density) * width for density in ridge.densities]
        assert areas == pytest.approx([1, 1, 1], abs=0.02)
        peaks = [max(density) for density in ridge.densities]
        assert peaks[0] > peaks[1] > peaks[2]  # the values spread from epoch to epoch


def test_no_tensorboard_no_ridges(tmp_path):
    assert read_ridges(tmp_path / "absent", "encoder") == []


def test_best_middle_and_worst_are_drawn(run):
    rows = read_predictions(run / "predictions.csv")
    axes = draw_captions(rows).axes
    scores = sorted((row.scores["cider_d"] for row in rows), reverse=True)
    titles = [found.get_title() for found in axes]
    places = zip(("best", "middle", "worst"), (scores[0], scores[2], scores[-1]), strict=True)
    assert titles == [f"{place} of 5: CIDEr-D {score:.2f}" for place, score in places]
    assert all(not text.get_parse_math() for found in axes for text in found.texts)


def test_pictures_that_are_gone_are_not_drawn(tmp_path):
    run = make_run(tmp_path / "run", pictures=3, hostile=False)
    rows = read_predictions(run / "predictions.csv")
    for path in (run / "pictures").iterdir():
        path.unlink()
    assert draw_captions(rows) is None


@pytest.mark.parametrize(
    "arguments", [[], ["run_dir=a"], ["run_dir=a", "out=b", "more=c"], ["run_dir", "out=b", "x"]]
)
def test_other_arguments_are_refused(arguments):
    with pytest.raises(UserError, match="expected run_dir and out"):
        main(arguments)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        main([f"run_dir={tmp_path / 'absent'}", f"out={tmp_path}"])


def test_a_folder_with_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected the folder of a finished run"):
        main([f"run_dir={tmp_path}", f"out={tmp_path / 'out'}"])


@pytest.mark.parametrize("module", ["figures", "diagram"])
def test_a_command_ends_with_one_line_on_a_mistake(module, monkeypatch):
    monkeypatch.setattr(sys, "argv", [module, "run=x"])
    monkeypatch.delitem(sys.modules, f"src.report.{module}", raising=False)
    with pytest.raises(SystemExit, match=r"^arguments='run=x'; expected [^\n]+$"):
        runpy.run_module(f"src.report.{module}", run_name="__main__")
