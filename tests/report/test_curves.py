"""losses.png."""

from PIL import Image

from src.report.curves import draw_losses, write_losses
from tests.report.fake_run import make_run


def test_a_run_with_a_log_gets_its_picture(tmp_path):
    run = make_run(tmp_path / "run", pictures=2, hostile=False)
    path = write_losses(run)
    assert path == run / "losses.png"
    with Image.open(path) as image:
        assert image.size == (1200, 600)
    first = path.read_bytes()
    assert write_losses(run).read_bytes() == first


def test_both_curves_and_the_best_are_drawn():
    history = [
        {"step": 1.0, "train/loss": 3.0},
        {"step": 2.0, "val/loss": 2.0},
        {"step": 4.0, "val/loss": 2.5},
    ]
    axes = draw_losses(history).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
    assert axes.texts[0].get_text() == "best 2.000"
    assert axes.texts[0].xy == (2.0, 2.0)


def test_a_run_without_losses_has_no_picture(tmp_path):
    assert write_losses(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
