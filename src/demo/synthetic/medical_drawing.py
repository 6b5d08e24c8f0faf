"""How a drawn medical figure looks: grey organs, a scanner's noise, markers and panel letters."""

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from src.demo.synthetic.medical_findings import Phantom

OVERSAMPLING = 2
Spot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Plate:
    """A square grey picture in the making; x and y run from 0 to 1, y downwards."""

    image: Image.Image
    draw: ImageDraw.ImageDraw

    def ellipse(self, x: float, y: float, rx: float, ry: float, grey: float) -> None:
        """A filled ellipse; grey is 0 to 255."""
        edge = self.image.width
        box = ((x - rx) * edge, (y - ry) * edge, (x + rx) * edge, (y + ry) * edge)
        self.draw.ellipse(box, fill=round(grey))

    def line(self, spots: list[Spot], grey: float, width: float) -> None:
        """A line; width is a share of the picture's edge."""
        edge = self.image.width
        points = [(x * edge, y * edge) for x, y in spots]
        self.draw.line(points, fill=round(grey), width=max(round(width * edge), 1), joint="curve")

    def polygon(self, spots: list[Spot], grey: float) -> None:
        """A filled polygon."""
        self.draw.polygon([(x * self.image.width, y * self.image.width) for x, y in spots], fill=round(grey))


def draw_figure(panels: tuple[Phantom, ...], size: int, rng: random.Random) -> Image.Image:
    """The figure, mode L: one panel of `size` x `size` pixels, or two side by side with letters A and B."""
    pictures = [_draw_panel(panel, size, rng) for panel in panels]
    if len(pictures) == 1:
        return pictures[0]
    gap = max(size // 32, 1)
    figure = Image.new("L", (2 * size + gap, size), 255)
    for place, (letter, picture) in enumerate(zip("AB", pictures, strict=True)):
        font = ImageFont.load_default(size / 7)
        ImageDraw.Draw(picture).text((size * 0.04, size * 0.01), letter, fill=255, font=font)
        figure.paste(picture, (place * (size + gap), 0))
    return figure


def _draw_panel(phantom: Phantom, size: int, rng: random.Random) -> Image.Image:
    edge = size * OVERSAMPLING
    image = Image.new("L", (edge, edge), 6)
    plate = Plate(image, ImageDraw.Draw(image))
    spot = {"head": _head, "chest": _chest, "abdomen": _abdomen, "ultrasound": _ultrasound, "bone": _bone}[
        phantom.kind
    ](plate, phantom, rng)
    soft = image.filter(ImageFilter.GaussianBlur(edge / 160)).resize((size, size), Image.Resampling.BOX)
    speckle = 30.0 if phantom.kind == "ultrasound" else 7.0
    pixels = np.asarray(soft, np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 1, pixels.shape).astype(np.float32)
    grain = noise * speckle * np.sqrt(pixels / 128)  # dark parts, and the air around, stay dark
    image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    if phantom.marker:
        _mark(Plate(image, ImageDraw.Draw(image)), phantom.marker, spot, rng)
    return image


def _jitter(rng: random.Random, value: float, by: float = 0.015) -> float:
    return value + rng.uniform(-by, by)


def _head(plate: Plate, phantom: Phantom, rng: random.Random) -> Spot:
    """An axial slice: skull, brain, ventricles; returns where the finding is."""
    ct = phantom.modality == "ct"
    wide, tall = _jitter(rng, 0.36), _jitter(rng, 0.44)
    plate.ellipse(0.5, 0.5, wide + 0.03, tall + 0.03, 235 if ct else 150)
    plate.ellipse(0.5, 0.5, wide, tall, 15 if not ct else 60)
    plate.ellipse(0.5, 0.5, wide - 0.025, tall - 0.025, 105 if ct else 120)
    if not ct:  # folds of the cortex
        for fold in range(28):
            angle = math.tau * fold / 28
            outer, inner = 0.97, _jitter(rng, 0.82, 0.05)
            ends = [
                (0.5 + far * wide * 0.92 * math.cos(angle), 0.5 + far * tall * 0.92 * math.sin(angle))
                for far in (outer, inner)
            ]
            plate.line(ends, 70, 0.008)
    plate.line([(0.5, 0.5 - tall * 0.9), (0.5, 0.5 + tall * 0.9)], 85 if ct else 70, 0.006)
    for side in (-1, 1):
        plate.ellipse(0.5 + side * 0.055, 0.45, 0.03, 0.1, 30)
        plate.ellipse(0.5 + side * 0.075, 0.58, 0.025, 0.07, 30)
    if not phantom.finding:
        return 0.5, 0.5
    x = 0.5 + (0.2 if phantom.side == "left" else -0.2) * wide / 0.36
    y = {"frontal": 0.27, "parietal": 0.5, "occipital": 0.73}[phantom.site]
    x, y = _jitter(rng, x), _jitter(rng, y)
    radius = 0.05 if phantom.size == "small" else 0.1
    if phantom.size == "large":  # swelling around it
        plate.ellipse(x, y, radius * 1.25, radius * 1.35, 80 if ct else 175)
    plate.ellipse(x, y, radius, radius * 1.1, 240 if phantom.finding == "bright" else 28)
    return x, y


def _chest(plate: Plate, phantom: Phantom, rng: random.Random) -> Spot:
    """A frontal radiograph: lungs, ribs, heart, diaphragm; returns where the finding is."""
    plate.polygon([(0.06, 0.2), (0.3, 0.1), (0.7, 0.1), (0.94, 0.2), (0.97, 1), (0.03, 1)], 165)
    plate.polygon([(0.42, 0), (0.58, 0), (0.6, 0.16), (0.4, 0.16)], 165)
    for side in (-1, 1):
        plate.ellipse(0.5 + side * 0.23, 0.5, 0.165, 0.34, 42)
    for rib in range(7):
        y = 0.2 + rib * 0.09
        for side in (-1, 1):
            plate.line(
                [(0.5 + side * u, y + v) for u, v in ((0.06, 0.02), (0.25, -0.02), (0.4, 0.07))], 92, 0.012
            )
    plate.line([(0.5, 0.08), (0.5, 0.95)], 205, 0.07)
    large = phantom.finding == "heart"
    plate.ellipse(
        0.57 if not large else 0.6, 0.66, 0.13 if not large else 0.25, 0.14 if not large else 0.2, 190
    )
    for side in (-1, 1):
        plate.ellipse(0.5 + side * 0.25, 0.96, 0.26, 0.17, 175)
    side = 1 if phantom.side == "left" else -1
    if phantom.finding == "nodule":
        x, y = (
            _jitter(rng, 0.5 + side * 0.25, 0.02),
            _jitter(rng, 0.33 if phantom.site == "upper" else 0.66, 0.03),
        )
        radius = 0.035 if phantom.size == "small" else 0.075
        plate.ellipse(x, y, radius, radius, 230)
        return x, y
    if phantom.finding == "effusion":
        x, top = 0.5 + side * 0.25, 0.7 if phantom.size == "small" else 0.48
        plate.polygon(
            [(x - 0.18, top + 0.05), (x, top + 0.07), (x + 0.18, top), (x + 0.19, 1), (x - 0.19, 1)], 200
        )
        return x, top + 0.1
    return 0.6, 0.66


def _abdomen(plate: Plate, phantom: Phantom, rng: random.Random) -> Spot:
    """An axial slice: liver, spleen, kidneys, spine, aorta; returns where the finding is."""
    wide, tall = _jitter(rng, 0.46), _jitter(rng, 0.36)
    plate.ellipse(0.5, 0.5, wide, tall, 120)
    plate.ellipse(0.5, 0.5, wide - 0.04, tall - 0.04, 70)
    plate.ellipse(0.3, 0.43, 0.2, 0.2, 150)  # liver
    plate.ellipse(0.42, 0.36, 0.18, 0.11, 150)
    plate.ellipse(0.62, 0.36, 0.13, 0.09, 100)  # stomach, with air in it
    plate.ellipse(0.64, 0.32, 0.08, 0.035, 8)
    plate.ellipse(0.8, 0.48, 0.08, 0.13, 155)  # spleen
    for x in (0.3, 0.7):
        plate.ellipse(x, 0.68, 0.075, 0.095, 185)
        plate.ellipse(x + (0.03 if x < 0.5 else -0.03), 0.68, 0.03, 0.04, 110)
    plate.ellipse(0.5, 0.72, 0.085, 0.075, 245)  # vertebra
    plate.ellipse(0.5, 0.74, 0.035, 0.03, 120)
    plate.ellipse(0.54, 0.59, 0.035, 0.035, 200)  # aorta
    spots = {
        "liver": (0.26, 0.43),
        "spleen": (0.8, 0.48),
        "kidney": (0.7 if phantom.side == "left" else 0.3, 0.68),
    }
    x, y = spots[phantom.site]
    x, y = _jitter(rng, x, 0.02), _jitter(rng, y, 0.02)
    radius = {"small": 0.035, "large": 0.075}[phantom.size]
    if phantom.finding == "stone":
        plate.ellipse(x, y, radius * 0.7, radius * 0.5, 255)
    else:
        plate.ellipse(x, y, radius, radius, 225 if phantom.finding == "bright" else 45)
    return x, y


def _ultrasound(plate: Plate, phantom: Phantom, rng: random.Random) -> Spot:
    """A fan of echoes; returns where the finding is."""
    edge = plate.image.width
    for depth, grey in ((1.0, 70), (0.75, 85), (0.5, 95)):
        reach = depth * 0.92 * edge
        box = (0.5 * edge - reach, 0.04 * edge - reach, 0.5 * edge + reach, 0.04 * edge + reach)
        plate.draw.pieslice(box, 48, 132, fill=grey)
    if phantom.site == "kidney":
        plate.ellipse(0.5, 0.52, 0.26, 0.16, 60)
        plate.ellipse(0.5, 0.52, 0.13, 0.05, 150)
    elif phantom.site == "gallbladder":
        plate.ellipse(0.5, 0.48, 0.24, 0.12, 5)
    else:
        for vessel in range(4):
            plate.line([(0.38 + vessel * 0.08, 0.3 + vessel * 0.05), (0.42 + vessel * 0.07, 0.5)], 40, 0.012)
    x, y = _jitter(rng, 0.5, 0.1), _jitter(rng, 0.6 if phantom.site == "liver" else 0.5, 0.04)
    if phantom.finding == "stones":
        for stone in (-0.1, 0.0, 0.09):
            left, y = 0.5 + stone, 0.54
            plate.ellipse(left, y, 0.03, 0.02, 250)
            plate.polygon(
                [(left - 0.02, y + 0.02), (left + 0.02, y + 0.02), (left + 0.03, 0.9), (left - 0.03, 0.9)], 15
            )
        return 0.5, 0.52
    radius = 0.05 if phantom.size == "small" else 0.11
    plate.ellipse(x, y, radius, radius * 0.85, 3 if phantom.finding == "cyst" else 225)
    return x, y


def _bone(plate: Plate, phantom: Phantom, rng: random.Random) -> Spot:
    """A long bone in soft tissue, drawn upright; returns where the fracture is."""
    tissue, half = {"femur": (0.3, 0.07), "humerus": (0.22, 0.05), "tibia": (0.25, 0.06)}[phantom.site]
    plate.polygon(
        [(0.5 - tissue, 0), (0.5 + tissue, 0), (0.5 + tissue * 0.8, 1), (0.5 - tissue * 0.8, 1)], 70
    )
    if phantom.site == "tibia":  # the fibula beside it
        plate.line([(0.64, 0.12), (0.65, 0.94)], 165, 0.035)
    plate.line([(0.5, 0.1), (0.5, 0.92)], 215, half * 2)
    plate.line([(0.5, 0.1), (0.5, 0.92)], 150, half)
    ends = {"femur": (0.11, 0.13), "humerus": (0.1, 0.08), "tibia": (0.13, 0.08)}[phantom.site]
    plate.ellipse(0.5, 0.09, ends[0], 0.07, 215)
    plate.ellipse(0.5, 0.93, ends[1], 0.06, 215)
    if phantom.site == "femur":  # head and neck
        plate.line([(0.5, 0.12), (0.36, 0.06)], 215, 0.07)
        plate.ellipse(0.34, 0.05, 0.06, 0.06, 225)
    y = _jitter(rng, {"proximal": 0.3, "middle": 0.51, "distal": 0.72}[phantom.level], 0.02)
    slant = 0.09 if phantom.finding == "oblique" else 0.0
    plate.line([(0.5 - half * 1.3, y + slant), (0.5 + half * 1.3, y - slant)], 25, 0.028)
    return 0.5, y


def _mark(plate: Plate, marker: str, spot: Spot, rng: random.Random) -> None:
    """A white arrow that points at the spot, or an asterisk beside it."""
    x, y = spot
    toward = 1 if x < 0.5 else -1
    if marker == "asterisk":
        cx = x + toward * 0.15
        for turn in range(3):
            dx, dy = 0.03 * math.cos(turn * math.pi / 3), 0.03 * math.sin(turn * math.pi / 3)
            plate.line([(cx - dx, y - dy), (cx + dx, y + dy)], 255, 0.014)
        return
    tip, tail = (x + toward * 0.08, y + 0.06), (x + toward * 0.22, y + _jitter(rng, 0.18, 0.02))
    plate.line([tail, tip], 255, 0.02)
    plate.polygon(
        [tip, (tip[0] + toward * 0.065, tip[1] + 0.01), (tip[0] + toward * 0.02, tip[1] + 0.07)], 255
    )
