"""Pictures of phantoms: findings are where the report says, seen as a radiologist does."""

import random
from dataclasses import replace

import numpy as np
import pytest

from src.demo.synthetic.medical_drawing import draw_figure
from src.demo.synthetic.medical_findings import Phantom

SIZE = 96


def pixels(*panels: Phantom) -> np.ndarray:
    return np.asarray(draw_figure(panels, SIZE, random.Random(0)), np.int32)


def head(finding: str, side: str, size: str = "large", marker: str = "") -> Phantom:
    return Phantom("head", finding, side, "parietal", "", size, "ct", marker)


@pytest.mark.parametrize(("finding", "sign"), [("bright", 1), ("dark", -1)])
def test_the_patients_left_is_on_the_right_of_the_picture(finding, sign):
    inside = slice(30, 66)
    for side, part in (("left", slice(56, 76)), ("right", slice(20, 40))):
        lesion = pixels(head(finding, side))[inside, part].mean()
        other = pixels(head(finding, "right" if side == "left" else "left"))[inside, part].mean()
        assert sign * (lesion - other) > 15


def test_a_large_lesion_is_larger():
    large, small = (
        (pixels(head("bright", "left", size))[30:66, 50:80] > 180).mean() for size in ("large", "small")
    )
    assert large > 2 * small > 0


@pytest.mark.parametrize("marker", ["arrow", "asterisk"])
def test_markers_are_white(marker):
    plain, marked = pixels(head("dark", "left")), pixels(head("dark", "left", marker=marker))
    assert (marked == 255).sum() > (plain == 255).sum() + 8


def test_two_panels_stand_side_by_side_with_their_letters():
    figure = pixels(Phantom("chest", ""), Phantom("chest", "heart"))
    assert figure.shape == (SIZE, 2 * SIZE + SIZE // 32)
    corners = [figure[2:16, start : start + 14] for start in (2, SIZE + SIZE // 32 + 2)]
    assert all((corner > 240).any() for corner in corners)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["nodule", "effusion"])
def test_findings_of_the_chest_brighten_a_lung(kind, side):
    normal = pixels(Phantom("chest", ""))
    changed = pixels(Phantom("chest", kind, side, "lower", "", "large"))
    half = slice(SIZE // 2, SIZE) if side == "left" else slice(0, SIZE // 2)
    assert (changed[:, half] - normal[:, half]).mean() > 3


def test_every_other_kind_differs_by_finding():
    liver = Phantom("abdomen", "dark", "", "liver", "", "large")
    kidney = Phantom("abdomen", "stone", "left", "kidney", "", "small")
    cyst = Phantom("ultrasound", "cyst", "", "liver", "", "large")
    oblique = Phantom("bone", "oblique", "", "femur", "distal")
    pairs = [
        (liver, replace(liver, finding="bright", site="spleen")),
        (kidney, replace(kidney, side="right", size="large")),
        (cyst, replace(cyst, finding="mass")),
        (replace(cyst, site="kidney"), Phantom("ultrasound", "stones", "", "gallbladder")),
        (oblique, Phantom("bone", "transverse", "", "tibia", "middle")),
    ]
    for one, other in pairs:
        assert np.abs(pixels(one) - pixels(other)).max() > 60
