"""Sample synthetic medical findings, draw them and write the captions that a report would give them.

Sides are the patient's, as in radiology: the patient's left is on the right of the image. Shapes, phrases and places
are in `medical.yaml`; all lengths are fractions of the image's edge, y downwards, and greys go from 0 to 255.
"""

import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from src.demo.synthetic.scene_drawing import OVERSAMPLING, Pen

Point = tuple[float, float]
TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("medical.yaml").read_text(encoding="utf-8"))
KINDS = ("head", "head", "chest", "chest", "abdomen", "abdomen", "ultrasound", "bone")
MARKERS = ("arrow", "arrow", "asterisk", "", "")
TWO_PROBABILITY = 0.15  # of a figure: two subfigures, A and B
VERBS = ("showing", "demonstrating", "revealing")


@dataclass(frozen=True, slots=True)
class Subfigure:
    """One image of a body part with at most one finding; "" is the normal one, and where a field does not apply."""

    kind: str  # head, chest, abdomen, ultrasound, bone
    finding: str
    side: str = ""  # left or right of the patient
    site: str = ""  # lobe, zone, organ or bone
    level: str = ""  # of a fracture
    size: str = ""  # small or large
    modality: str = ""  # of the head: ct or mr
    marker: str = ""  # arrow (points at the finding) or asterisk (beside it)


def sample_figure(rng: random.Random) -> tuple[Subfigure, ...]:
    """Sample the subfigures of a figure: one, or two of the same body part."""
    first = _sample_subfigure(rng)
    if rng.random() >= TWO_PROBABILITY:
        return (first,)
    second = _sample_subfigure(rng)
    while second.kind != first.kind or second.modality != first.modality:
        second = _sample_subfigure(rng)
    return first, second


def _sample_subfigure(rng: random.Random) -> Subfigure:
    kind = rng.choice(KINDS)
    side, size, marker = rng.choice(("left", "right")), rng.choice(("small", "large")), rng.choice(MARKERS)
    modality = rng.choice(("ct", "mr")) if kind == "head" else ""
    if kind in ("head", "chest") and rng.random() < 0.1:
        return Subfigure(kind, "", modality=modality)
    if kind == "head":
        finding, site = rng.choice(("bright", "dark")), rng.choice(("frontal", "parietal", "occipital"))
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
        finding, site = rng.choice(("transverse", "oblique")), rng.choice(("femur", "humerus", "tibia"))
        return Subfigure(kind, finding, "", site, rng.choice(("proximal", "middle", "distal")), marker=marker)
    return Subfigure(kind, finding, side, site, "", size, modality, marker)


def report(figure: tuple[Subfigure, ...], rng: random.Random) -> str:
    """Return the caption of a figure, without its label."""
    verb, first = rng.choice(VERBS), figure[0]
    view = rng.choice(TABLES["views"][first.kind + first.modality]).format(site=first.site)
    texts = [_describe(subfigure) for subfigure in figure]
    text = f"(A) {texts[0]} and (B) {texts[1]}" if len(texts) == 2 else texts[0]
    return f"{view} {verb} {text}."


def _describe(subfigure: Subfigure) -> str:
    if not subfigure.finding:
        return "normal findings"
    organ, tone = f"{subfigure.side} {subfigure.site}".strip(), TABLES["tones"][subfigure.modality]
    template = TABLES["findings"][subfigure.kind][subfigure.finding]
    text = template.format(**asdict(subfigure), organ=organ, tone=tone.get(subfigure.finding, ""))
    return f"{text} ({subfigure.marker})" if subfigure.marker else text


def draw_figure(figure: tuple[Subfigure, ...], size: int, rng: random.Random) -> Image.Image:
    """Draw a figure, mode L: one image of `size` x `size` pixels, or two side by side with letters A and B."""
    images = [_draw_subfigure(subfigure, size, rng) for subfigure in figure]
    if len(images) == 1:
        return images[0]
    gap, font = max(size // 32, 1), ImageFont.load_default(size / 7)
    canvas = Image.new("L", (2 * size + gap, size), 255)
    for index, image in enumerate(images):
        ImageDraw.Draw(image).text((size * 0.04, size * 0.01), "AB"[index], fill=255, font=font)
        canvas.paste(image, (index * (size + gap), 0))
    return canvas


def _draw_subfigure(subfigure: Subfigure, size: int, rng: random.Random) -> Image.Image:
    edge = size * OVERSAMPLING
    image = Image.new("L", (edge, edge), 6)
    x, y = DRAW[subfigure.kind](Pen(image), subfigure, rng)
    soft = image.filter(ImageFilter.GaussianBlur(edge / 160)).resize((size, size), Image.Resampling.BOX)
    pixels, speckle = np.asarray(soft, np.float32), 30.0 if subfigure.kind == "ultrasound" else 7.0
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 1, pixels.shape).astype(np.float32)
    grain = noise * speckle * np.sqrt(pixels / 128)  # dark regions, and the air around, stay dark
    image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    if subfigure.marker:
        _draw_marker(Pen(image), subfigure.marker, x, y, rng)
    return image


def _jitter(rng: random.Random, value: float, by: float = 0.015) -> float:
    return value + rng.uniform(-by, by)


def _oval(pen: Pen, grey: int, x: float, y: float, rx: float, ry: float) -> Point:
    """Draw an oval and return its centre."""
    pen.shape("oval", grey, x, y, rx, ry)
    return x, y


# Each draws a body part and returns where its finding is.


def _head(pen: Pen, head: Subfigure, rng: random.Random) -> Point:
    grey = TABLES["greys"][head.modality]
    wide, tall = _jitter(rng, 0.36), _jitter(rng, 0.44)
    for part, inset in (("skull", -0.03), ("fluid", 0.0), ("brain", 0.025)):
        _oval(pen, grey[part], 0.5, 0.5, wide - inset, tall - inset)
    for fold in range(28 if head.modality == "mr" else 0):  # of the cortex
        angle, inner = math.tau * fold / 28, _jitter(rng, 0.82, 0.05)
        u, v = wide * 0.92 * math.cos(angle), tall * 0.92 * math.sin(angle)
        pen.shape("line", grey["fold"], 0.008, 0.5 + 0.97 * u, 0.5 + 0.97 * v, 0.5 + inner * u, 0.5 + inner * v)
    pen.shape("line", grey["middle"], 0.006, 0.5, 0.5 - tall * 0.9, 0.5, 0.5 + tall * 0.9)
    pen.shapes(TABLES["shapes"]["ventricles"])
    if not head.finding:
        return 0.5, 0.5
    x = 0.5 + (0.2 if head.side == "left" else -0.2) * wide / 0.36
    x, y = _jitter(rng, x), _jitter(rng, {"frontal": 0.27, "parietal": 0.5, "occipital": 0.73}[head.site])
    radius = 0.05 if head.size == "small" else 0.1
    if head.size == "large":
        _oval(pen, grey["swelling"], x, y, radius * 1.25, radius * 1.35)
    return _oval(pen, 240 if head.finding == "bright" else 28, x, y, radius, radius * 1.1)


def _chest(pen: Pen, chest: Subfigure, rng: random.Random) -> Point:
    for name in ("chest", "enlarged heart" if chest.finding == "heart" else "heart", "diaphragm"):
        pen.shapes(TABLES["shapes"][name])
    x = 0.5 + (0.25 if chest.side == "left" else -0.25)
    if chest.finding == "nodule":
        x, y = _jitter(rng, x, 0.02), _jitter(rng, 0.33 if chest.site == "upper" else 0.66, 0.03)
        radius = 0.035 if chest.size == "small" else 0.075
        return _oval(pen, 230, x, y, radius, radius)
    if chest.finding == "effusion":
        top = 0.7 if chest.size == "small" else 0.48
        surface = (x - 0.18, top + 0.05, x, top + 0.07, x + 0.18, top)
        pen.shape("polygon", 200, *surface, x + 0.19, 1, x - 0.19, 1)
        return x, top + 0.1
    return 0.6, 0.66


def _abdomen(pen: Pen, abdomen: Subfigure, rng: random.Random) -> Point:
    wide, tall = _jitter(rng, 0.46), _jitter(rng, 0.36)
    _oval(pen, 120, 0.5, 0.5, wide, tall)
    _oval(pen, 70, 0.5, 0.5, wide - 0.04, tall - 0.04)
    pen.shapes(TABLES["shapes"]["abdomen"])
    kidney = (0.7 if abdomen.side == "left" else 0.3, 0.68)
    x, y = {"liver": (0.26, 0.43), "spleen": (0.8, 0.48), "kidney": kidney}[abdomen.site]
    x, y = _jitter(rng, x, 0.02), _jitter(rng, y, 0.02)
    radius = 0.035 if abdomen.size == "small" else 0.075
    if abdomen.finding == "stone":
        return _oval(pen, 255, x, y, radius * 0.7, radius * 0.5)
    return _oval(pen, 225 if abdomen.finding == "bright" else 45, x, y, radius, radius)


def _ultrasound(pen: Pen, scan: Subfigure, rng: random.Random) -> Point:
    for depth, grey in ((1.0, 70), (0.75, 85), (0.5, 95)):
        reach = depth * 0.92
        box = pen.points((0.5 - reach, 0.04 - reach, 0.5 + reach, 0.04 + reach))
        ImageDraw.Draw(pen.image).pieslice(box, 48, 132, fill=grey)
    pen.shapes(TABLES["shapes"][scan.site])
    x, y = _jitter(rng, 0.5, 0.1), _jitter(rng, 0.6 if scan.site == "liver" else 0.5, 0.04)
    if scan.finding == "stones":
        pen.shapes(TABLES["shapes"]["stones"])
        return 0.5, 0.52
    radius = 0.05 if scan.size == "small" else 0.11
    return _oval(pen, 3 if scan.finding == "cyst" else 225, x, y, radius, radius * 0.85)


def _bone(pen: Pen, bone: Subfigure, rng: random.Random) -> Point:
    pen.shapes(TABLES["shapes"][bone.site])
    half = {"femur": 0.07, "humerus": 0.05, "tibia": 0.06}[bone.site] * 1.3
    y = _jitter(rng, {"proximal": 0.3, "middle": 0.51, "distal": 0.72}[bone.level], 0.02)
    slant = 0.09 if bone.finding == "oblique" else 0.0
    pen.shape("line", 25, 0.028, 0.5 - half, y + slant, 0.5 + half, y - slant)
    return 0.5, y


DRAW = {"head": _head, "chest": _chest, "abdomen": _abdomen, "ultrasound": _ultrasound, "bone": _bone}


def _draw_marker(pen: Pen, marker: str, x: float, y: float, rng: random.Random) -> None:
    """Draw a white arrow that points at (x, y), or an asterisk beside it."""
    toward = 1 if x < 0.5 else -1
    if marker == "asterisk":
        x += toward * 0.15
        for turn in range(3):
            dx, dy = 0.03 * math.cos(turn * math.pi / 3), 0.03 * math.sin(turn * math.pi / 3)
            pen.shape("line", 255, 0.014, x - dx, y - dy, x + dx, y + dy)
        return
    tail = (x + toward * 0.22, y + _jitter(rng, 0.18, 0.02))
    x, y = x + toward * 0.08, y + 0.06
    pen.shape("line", 255, 0.02, *tail, x, y)
    pen.shape("polygon", 255, x, y, x + toward * 0.065, y + 0.01, x + toward * 0.02, y + 0.07)
