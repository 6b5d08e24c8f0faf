"""Sample synthetic medical findings and write the captions that a report would give them.

Sides are the patient's, as in radiology: the patient's left is on the right of the image.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("medical.yaml").read_text(encoding="utf-8"))
LOBES = ("frontal", "parietal", "occipital")
BONES = ("femur", "humerus", "tibia")
LEVELS = ("proximal", "middle", "distal")
MARKERS = ("arrow", "arrow", "asterisk", "", "")
TWO_PROBABILITY = 0.15  # of a figure: two subfigures, A and B
VERBS = ("showing", "demonstrating", "revealing")


@dataclass(frozen=True, slots=True)
class Subfigure:
    """One image of a body part with at most one finding.

    kind: "head", "chest", "abdomen", "ultrasound", "bone".
    modality: of the head "ct" or "mr"; "" elsewhere.
    finding: "" is the normal one.
    side: "left" or "right" of the patient, or "".
    site: lobe, zone, organ or bone; level: of a fracture; size: "small", "large" or "".
    marker: "arrow" (points at the finding), "asterisk" (beside it) or "".
    """

    kind: str
    finding: str
    side: str = ""
    site: str = ""
    level: str = ""
    size: str = ""
    modality: str = ""
    marker: str = ""


def sample_figure(rng: random.Random) -> tuple[Subfigure, ...]:
    """Sample the subfigures of a figure: one, or two of the same body part."""
    first = sample_subfigure(rng)
    if rng.random() >= TWO_PROBABILITY:
        return (first,)
    second = sample_subfigure(rng)
    while second.kind != first.kind or second.modality != first.modality:
        second = sample_subfigure(rng)
    return first, second


def sample_subfigure(rng: random.Random) -> Subfigure:
    """Sample a body part with a finding."""
    kind = rng.choice(("head", "head", "chest", "chest", "abdomen", "abdomen", "ultrasound", "bone"))
    side, size, marker = rng.choice(("left", "right")), rng.choice(("small", "large")), rng.choice(MARKERS)
    modality = rng.choice(("ct", "mr")) if kind == "head" else ""
    if kind in ("head", "chest") and rng.random() < 0.1:
        return Subfigure(kind, "", modality=modality)
    if kind == "head":
        finding, site = rng.choice(("bright", "dark")), rng.choice(LOBES)
    elif kind == "chest":
        finding = rng.choice(("nodule", "nodule", "effusion", "heart"))
        if finding == "heart":
            return Subfigure(kind, finding)
        site = rng.choice(("upper", "lower"))
    elif kind == "abdomen":
        site = rng.choice(("liver", "liver", "spleen", "kidney", "kidney"))
        finding = rng.choice(("bright", "dark", "stone") if site == "kidney" else ("bright", "dark"))
        side = side if site == "kidney" else ""
    elif kind == "ultrasound":
        finding, side = rng.choice(("cyst", "mass", "stones")), ""
        site = "gallbladder" if finding == "stones" else rng.choice(("liver", "kidney"))
        size = size if finding != "stones" else ""
    else:
        finding = rng.choice(("transverse", "oblique"))
        return Subfigure(kind, finding, "", rng.choice(BONES), rng.choice(LEVELS), marker=marker)
    return Subfigure(kind, finding, side, site, "", size, modality, marker)


def report(figure: tuple[Subfigure, ...], rng: random.Random) -> str:
    """Return the caption of a figure, without its label."""
    verb, first = rng.choice(VERBS), figure[0]
    view = rng.choice(TABLES["views"][first.kind + first.modality]).format(site=first.site)
    texts = [_finding(subfigure) for subfigure in figure]
    if len(texts) == 2:
        texts = [f"(A) {texts[0]} and (B) {texts[1]}"]
    return f"{view} {verb} {texts[0]}."


def _finding(subfigure: Subfigure) -> str:
    if not subfigure.finding:
        return "normal findings"
    tone = TABLES["tones"][subfigure.modality].get(subfigure.finding, "")
    side, site = subfigure.side, subfigure.site
    text = TABLES["findings"][subfigure.kind][subfigure.finding].format(
        size=subfigure.size,
        side=side,
        site=site,
        level=subfigure.level,
        tone=tone,
        organ=f"{side} {site}".strip(),
    )
    return f"{text} ({subfigure.marker})" if subfigure.marker else text
