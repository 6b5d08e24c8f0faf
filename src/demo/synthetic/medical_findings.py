"""What a drawn medical figure shows, and the sentence that a report would give it.

Sides are the patient's, as in radiology: the patient's left is on the right of the picture.
"""

import random
from dataclasses import dataclass

LOBES = ("frontal", "parietal", "occipital")
BONES = ("femur", "humerus", "tibia")
LEVELS = ("proximal", "middle", "distal")
MARKERS = ("arrow", "arrow", "asterisk", "", "")
PANEL_SHARE = 0.15  # of the figures that have two panels, A and B
VERBS = ("showing", "demonstrating", "revealing")


@dataclass(frozen=True, slots=True)
class Phantom:
    """One picture of a body part with at most one finding.

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


def sample_figure(rng: random.Random) -> tuple[Phantom, ...]:
    """The panels of a figure: one, or two of the same body part."""
    first = sample_phantom(rng)
    if rng.random() >= PANEL_SHARE:
        return (first,)
    second = sample_phantom(rng)
    while second.kind != first.kind or second.modality != first.modality:
        second = sample_phantom(rng)
    return first, second


def sample_phantom(rng: random.Random) -> Phantom:
    """A body part with a finding, by chance."""
    kind = rng.choice(("head", "head", "chest", "chest", "abdomen", "abdomen", "ultrasound", "bone"))
    side, size, marker = rng.choice(("left", "right")), rng.choice(("small", "large")), rng.choice(MARKERS)
    modality = rng.choice(("ct", "mr")) if kind == "head" else ""
    if kind in ("head", "chest") and rng.random() < 0.1:
        return Phantom(kind, "", modality=modality)
    if kind == "head":
        return Phantom(
            kind, rng.choice(("bright", "dark")), side, rng.choice(LOBES), "", size, modality, marker
        )
    if kind == "chest":
        finding = rng.choice(("nodule", "nodule", "effusion", "heart"))
        if finding == "heart":
            return Phantom(kind, finding)
        return Phantom(kind, finding, side, rng.choice(("upper", "lower")), "", size, "", marker)
    if kind == "abdomen":
        organ = rng.choice(("liver", "liver", "spleen", "kidney", "kidney"))
        finding = rng.choice(("bright", "dark", "stone") if organ == "kidney" else ("bright", "dark"))
        return Phantom(kind, finding, side if organ == "kidney" else "", organ, "", size, "", marker)
    if kind == "ultrasound":
        finding = rng.choice(("cyst", "mass", "stones"))
        site = "gallbladder" if finding == "stones" else rng.choice(("liver", "kidney"))
        return Phantom(kind, finding, "", site, "", size if finding != "stones" else "", "", marker)
    finding = rng.choice(("transverse", "oblique"))
    return Phantom(kind, finding, "", rng.choice(BONES), rng.choice(LEVELS), "", "", marker)


def report(panels: tuple[Phantom, ...], rng: random.Random) -> str:
    """The caption of a figure, without its label."""
    verb = rng.choice(VERBS)
    if len(panels) == 1:
        return f"{_view(panels[0], rng)} {verb} {_finding(panels[0])}{_marker(panels[0])}."
    told = [
        f"({letter}) {_finding(panel)}{_marker(panel)}" for letter, panel in zip("AB", panels, strict=True)
    ]
    return f"{_view(panels[0], rng)} {verb} {told[0]} and {told[1]}."


def _view(phantom: Phantom, rng: random.Random) -> str:
    names = {
        "headct": ("Axial computed tomography scan of the head", "Computed tomography of the brain"),
        "headmr": ("Axial magnetic resonance image of the brain", "Magnetic resonance imaging of the brain"),
        "chest": ("Frontal chest radiograph", "Chest radiograph of the patient"),
        "abdomen": ("Axial computed tomography scan of the abdomen", "Abdominal computed tomography"),
        "ultrasound": ("Ultrasound image", "Abdominal ultrasound"),
        "bone": ("Radiograph of the", "Plain radiograph of the"),
    }
    view = rng.choice(names[phantom.kind + phantom.modality])
    if phantom.kind == "ultrasound":
        return f"{view} of the {phantom.site}"
    return f"{view} {phantom.site}" if phantom.kind == "bone" else view


def _finding(phantom: Phantom) -> str:
    if not phantom.finding:
        return "normal findings"
    tone = {
        "ct": {"bright": "hyperdense", "dark": "hypodense"},
        "mr": {"bright": "hyperintense", "dark": "hypointense"},
        "": {"bright": "enhancing", "dark": "hypodense"},
    }[phantom.modality].get(phantom.finding, "")
    size, side, site = phantom.size, phantom.side, phantom.site
    if phantom.kind == "head":
        return f"a {size} {tone} lesion in the {side} {site} lobe"
    if phantom.finding == "nodule":
        return f"a {size} nodule in the {side} {site} lobe"
    if phantom.finding == "effusion":
        return f"a {size} {side} pleural effusion"
    if phantom.finding == "heart":
        return "an enlarged heart"
    if phantom.kind == "abdomen":
        organ = f"{side} {site}" if side else site
        what = "calcified stone" if phantom.finding == "stone" else f"{tone} lesion"
        return f"a {size} {what} in the {organ}"
    if phantom.kind == "ultrasound":
        return {
            "cyst": f"a {size} anechoic cyst",
            "mass": f"a {size} hyperechoic mass",
            "stones": "multiple stones with acoustic shadowing",
        }[phantom.finding]
    article = "an" if phantom.finding == "oblique" else "a"
    return f"{article} {phantom.finding} fracture of the {phantom.level} shaft"


def _marker(phantom: Phantom) -> str:
    return f" ({phantom.marker})" if phantom.marker else ""
