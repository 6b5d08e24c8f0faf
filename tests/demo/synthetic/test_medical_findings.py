"""Reports of drawn figures, by hand-made example and over many."""

import random

from src.demo.synthetic.medical_findings import Phantom, report, sample_figure


def tell(*panels: Phantom) -> str:
    return report(panels, random.Random(0))


def test_findings_by_hand():
    head = Phantom("head", "bright", "left", "frontal", "", "small", "ct", "arrow")
    assert tell(head).endswith("a small hyperdense lesion in the left frontal lobe (arrow).")
    assert tell(Phantom("chest", "effusion", "right", "lower", "", "large")).endswith(
        "a large right pleural effusion."
    )
    assert tell(Phantom("abdomen", "stone", "left", "kidney", "", "small")).endswith(
        "a small calcified stone in the left kidney."
    )
    assert "of the liver" in tell(Phantom("ultrasound", "cyst", "", "liver", "", "large"))
    assert tell(Phantom("bone", "oblique", "", "femur", "distal")).endswith(
        "an oblique fracture of the distal shaft."
    )
    assert tell(Phantom("chest", "")).endswith("normal findings.")


def test_panels_are_told_by_their_letters():
    panels = Phantom("chest", "heart"), Phantom("chest", "nodule", "left", "upper", "", "small")
    assert tell(*panels).endswith("(A) an enlarged heart and (B) a small nodule in the left upper lobe.")


def test_many_figures_are_told_in_whole_sentences():
    told = set()
    for index in range(500):
        rng = random.Random(index)
        panels = sample_figure(rng)
        assert len({(panel.kind, panel.modality) for panel in panels}) == 1
        told.add(report(panels, rng))
    assert len(told) > 300
    assert all(text[0].isupper() and text.endswith(".") and "  " not in text for text in told)
