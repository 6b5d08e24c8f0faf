"""Figures of a run: curves, weight histograms, captioned images, attention maps."""

import re

import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from src.report.figures import (
    draw_attention,
    draw_extremes,
    draw_images,
    draw_losses,
    draw_scores,
    draw_weights,
    inline_svg,
    main,
    write_losses,
)
from src.report.run_files import read_predictions
from src.utils.errors import UserError
from tests.report.fake_run import HOSTILE, make_run

NAMES = [
    f"h.11.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "q_attn", "c_fc", "c_proj", "ln", "x")
]
HISTORY = [
    {"step": 1.0, "train/loss": 3.0}, {"step": 2.0, "val/loss": 2.0, "val/cider_d": 0.5},
    {"step": 4.0, "val/loss": 2.5, "val/cider_d": 0.7},
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight images, the first of which is missing, and weight histograms of three epochs."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "run", 8)
    (folder / "images" / "0000.jpg").unlink()
    writer = SummaryWriter(str(folder / "tensorboard"))
    for stack in ("encoder", "decoder"):
        for name in NAMES:
            for epoch in (0, 1, 2, 2):  # a resumed run logs a step again
                generator = torch.Generator().manual_seed(epoch)
                values = torch.randn(20 if ".ln" in name else 4000, generator=generator) * (1 + epoch)
                writer.add_histogram(f"weights/{stack}/{name}", values, epoch)
    writer.add_histogram("gradients/decoder/h.11.ln.weight", torch.zeros(3), 0)
    writer.close()
    return folder


def test_one_command_draws_every_figure(run, tmp_path, capsys):
    main([f"run_dir={run}", f"out={tmp_path}"])
    names = ["losses.png", "encoder_weights.png", "decoder_weights.png", "captions.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run_dir=a"], "out not given; expected run_dir=..., out=..."),
        (["run_dir=.", "out=b"], "expected the folder of a finished run"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        main(arguments)


def test_curves_mark_the_lowest_loss_and_the_highest_score():
    losses, scores = draw_losses(HISTORY).axes[0], draw_scores(HISTORY).axes[0]
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["training", "validation"]
    assert (losses.texts[0].get_text(), losses.texts[0].xy) == ("best 2.000", (2.0, 2.0))
    assert (scores.texts[0].get_text(), scores.texts[0].xy) == ("best 0.700", (4.0, 0.7))
    assert draw_losses([]) is None
    assert draw_scores([{"step": 1.0, "val/loss": 2.0}]) is None


def test_losses_are_written_the_same_each_time(run, tmp_path):
    first = write_losses(run).read_bytes()
    assert write_losses(run).read_bytes() == first
    with Image.open(run / "losses.png") as image:
        assert image.size == (1200, 600)
    assert write_losses(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_an_inline_svg_has_no_styles_links_or_fixed_colours():
    svg = inline_svg(draw_losses(HISTORY), "Loss", "chart wide")
    assert svg.startswith('<svg class="chart wide" viewBox="0 0 ')
    assert not re.search(
        r"style|https?:|url\(|font|#[0-9a-f]{6}\b(?!\d)", re.sub(r'href="#m[0-9a-f]+"', "", svg)
    )
    assert {"var(--tuned)", "var(--train)", "var(--soft)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert ">training</text>" in svg
    assert svg == inline_svg(draw_losses(HISTORY), "Loss", "chart wide")


def test_histograms_of_the_largest_weights_over_the_epochs(run, tmp_path):
    axes = draw_weights(run / "tensorboard", "decoder").axes
    assert [found.get_title() for found in axes if found.get_visible()] == [
        name.removeprefix("h.11.") for name in NAMES if ".ln" not in name
    ]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["0", "1", "2"]
    heights = [line.get_ydata().max() - line.get_ydata().min() for line in axes[0].lines]
    assert heights[0] > heights[1] > heights[2]  # the values spread from epoch to epoch
    assert draw_weights(tmp_path / "absent", "encoder") is None
    writer = SummaryWriter(str(tmp_path))
    writer.add_histogram("weights/encoder/layer.0.weight", torch.zeros(10), 0)
    writer.close()
    draw_weights(tmp_path, "encoder").canvas.draw()  # equal values


def test_best_middle_and_worst_captions(run, tmp_path):
    rows = read_predictions(run / "predictions.csv")
    axes = [found for found in draw_extremes(rows).axes if found.has_data()]
    scores = sorted((row.scores["cider_d"] for row in rows[1:]), reverse=True)
    ranks = zip(("best", "middle", "worst"), (scores[0], scores[3], scores[-1]), strict=True)
    assert [found.get_title() for found in axes] == [
        f"{rank} of 7: CIDEr-D {score:.2f}" for rank, score in ranks
    ]
    assert draw_extremes(rows[:1]) is None  # no readable image


def test_readable_images_with_their_captions_as_text(run):
    figure = draw_images(run, count=4)
    texts = [text for axes in figure.axes for text in axes.texts]
    joined = " ".join(text.get_text().replace("\n", " ") for text in texts)
    assert len([axes for axes in figure.axes if axes.has_data()]) == 4
    assert f"after: {HOSTILE}"[:60] in joined
    assert not any(text.get_parse_math() for text in texts)
    figure.canvas.draw()


def test_attention_is_plotted_word_by_word(run):
    rows = read_predictions(run / "predictions.csv")
    figure = draw_attention(run, rows[3].image_id)
    assert [axes.get_title() for axes in figure.axes if axes.has_data()] == rows[3].caption.split()
    figure.canvas.draw()
    assert draw_attention(run).axes[0].get_title() == "a"
    for image_id in ("0000.jpg", "nowhere.jpg"):
        with pytest.raises(
            UserError, match=rf"image_id='{image_id}' has no attention map; expected one of \d+\.jpg"
        ):
            draw_attention(run, image_id)
