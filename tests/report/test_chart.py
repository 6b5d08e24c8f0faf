"""Curves as drawings."""

import pytest

from src.report.chart import draw, loss_charts, score_charts, ticks

HISTORY = [{"step": s, "train/loss": 4.0 / s} for s in range(1, 400)] + [
    {"step": s, "val/loss": 5.0 / s, "val/cider_d": s / 300} for s in (100, 200, 300)
]


def inside(chart, x, y) -> bool:
    left, top, right, bottom = chart.box
    return left <= x <= right and top <= y <= bottom


def test_a_run_has_a_wide_and_a_narrow_chart_with_every_point_inside():
    for chart in loss_charts(HISTORY):
        assert [line.style for line in chart.lines] == ["train", "val"]
        assert len(chart.lines[1].dots) == 3
        for line in chart.lines:
            for point in line.path.removeprefix("M").split(" L"):
                assert inside(chart, *map(float, point.split()))
        assert 2 <= len(chart.x_ticks) <= 12
        assert 2 <= len(chart.y_ticks) <= 12
    wide, narrow = loss_charts(HISTORY)
    assert wide.width > narrow.width


def test_the_lowest_loss_and_the_highest_score_are_the_best():
    assert loss_charts(HISTORY)[0].best[2] == f"{5 / 300:.3f}"
    assert score_charts(HISTORY)[0].best[2] == "1.000"


def test_nothing_logged_is_nothing_drawn():
    assert loss_charts([]) == []
    assert score_charts([{"step": 1.0, "val/loss": 2.0}]) == []


def test_training_alone_has_no_best():
    assert loss_charts([{"step": 1.0, "train/loss": 2.0}])[0].best is None


def test_a_single_point_can_be_drawn():
    chart = draw("one", [("validation", "val", [(0.0, 0.0)])], (300, 200))
    assert inside(chart, *chart.lines[0].dots[0][:2])


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0.93, 3.4, 5, [1.0, 1.5, 2.0, 2.5, 3.0]),
        (0, 299, 4, [0, 100, 200]),
        (-1, 1, 4, [-1, -0.5, 0, 0.5, 1]),
        (1e-4, 3e-4, 2, [1e-4, 2e-4, 3e-4]),
    ],
)
def test_ticks_are_round_and_within(low, high, about, expected):
    assert ticks(low, high, about) == pytest.approx(expected)
