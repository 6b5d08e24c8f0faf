"""Figures of a run: curves, weight histograms, captioned images, attention maps."""

import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from src.report import figures
from src.report.figures import draw_attention, draw_curves, draw_extremes, draw_images, draw_weights
from src.report.run_files import read_predictions
from src.utils.errors import UserError
from tests.report.fake_run import HOSTILE, make_run

NAMES = [f"h.11.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "c_fc", "c_proj", "ln", "x", "y")]
HISTORY = [
    {"step": 1.0, "train/loss": 3.0}, {"step": 2.0, "val/loss": 2.0, "val/cider_d": 0.5},
    {"step": 4.0, "val/loss": 2.5, "val/cider_d": 0.7}, {"step": 5.0, "val/loss": 2.6, "val/cider_d": 0.6},
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight images, the first of which is missing, and weight histograms of three epochs."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "run", 8)
    (folder / "images" / "0000.jpg").unlink()
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for stack in ("encoder", "decoder"):
            for name in NAMES:
                for epoch in (0, 1, 2, 2):  # a resumed run logs a step again
                    generator = torch.Generator().manual_seed(epoch)
                    values = torch.randn(20 if ".ln" in name else 4000, generator=generator) * (1 + epoch)
                    writer.add_histogram(f"weights/{stack}/{name}", values, epoch)
        writer.add_histogram("gradients/decoder/h.11.ln.weight", torch.zeros(3), 0)
    return folder


@pytest.mark.slow
def test_one_command_draws_every_figure(run, tmp_path, capsys):
    figures.main([f"run_dir={run}", f"out={tmp_path / 'out'}"])
    names = ["losses.png", "encoder_weights.png", "decoder_weights.png", "captions.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / name) for name in names]
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG") for name in names)
    with pytest.raises(UserError, match="has nothing to draw"):
        figures.main([f"run_dir={tmp_path}", "out=b"])


def test_curves_mark_the_lowest_loss_and_the_highest_score():
    losses, scores = (draw_curves(HISTORY, name).axes[0] for name in ("loss", "cider_d"))
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["training", "validation"]
    assert (losses.texts[0].get_text(), losses.texts[0].xy) == ("best 2.000", (2.0, 2.0))
    assert (scores.texts[0].get_text(), scores.texts[0].xy) == ("best 0.700", (4.0, 0.7))
    assert (losses.get_xlim()[0], losses.get_ylim()[0]) == (0, 0)
    assert draw_curves(HISTORY[:3], "loss", min_points=3) is None
    assert draw_curves([], "loss") is None


def test_losses_are_written_the_same_each_time(run, tmp_path):
    first = figures.write_losses(run).read_bytes()
    assert figures.write_losses(run).read_bytes() == first
    with Image.open(run / "losses.png") as image:
        assert image.size == (1200, 600)
    assert figures.write_losses(tmp_path) is None
    assert len({figures.svg_uri(draw_curves(HISTORY, "loss")) for _ in range(2)}) == 1


def test_histograms_of_the_largest_weights_over_the_epochs(run, tmp_path):
    axes = draw_weights(run / "tensorboard", "decoder").axes
    titles = [found.get_title() for found in axes if found.get_visible()]
    assert titles == [name for name in NAMES if ".ln" not in name]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["0", "1", "2"]
    heights = [line.get_ydata().max() - line.get_ydata().min() for line in axes[0].lines]
    assert heights[0] > heights[1] > heights[2]  # the values spread from epoch to epoch
    assert draw_weights(tmp_path / "absent", "encoder") is None
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_histogram("weights/encoder/layer.0.weight", torch.zeros(10), 0)
    draw_weights(tmp_path, "encoder").canvas.draw()  # equal values


def test_best_middle_and_worst_captions(run):
    rows = read_predictions(run / "predictions.csv")
    scores = sorted((row.scores["cider_d"] for row in rows[1:]), reverse=True)
    ranks = zip(("best", "middle", "worst"), (scores[0], scores[3], scores[-1]), strict=True)
    titles = [found.get_title() for found in draw_extremes(rows).axes]
    assert titles == [f"{rank} of 7: CIDEr-D {score:.3f}" for rank, score in ranks]
    assert draw_extremes(rows[:1]) is None  # no readable image


def test_readable_images_with_their_captions_as_text(run):
    figure = draw_images(run, count=4)
    texts = [text for axes in figure.axes for text in axes.texts]
    joined = " ".join(text.get_text().replace("\n", " ") for text in texts)
    assert len([axes for axes in figure.axes if axes.has_data()]) == 4
    assert f"fine-tuned: {HOSTILE}"[:60] in joined
    assert not any(text.get_parse_math() for text in texts)
    figure.canvas.draw()


def test_attention_is_plotted_word_by_word(run):
    rows = read_predictions(run / "predictions.csv")
    figure = draw_attention(run, rows[3].image_id)
    assert [axes.get_title() for axes in figure.axes if axes.has_data()] == rows[3].caption.split()
    figure.canvas.draw()
    assert draw_attention(run).axes[0].get_title() == "a"
    for image_id in ("0000.jpg", "nowhere.jpg"):
        with pytest.raises(UserError, match=rf"image_id='{image_id}' has no attention map; expected one of \d+"):
            draw_attention(run, image_id)
