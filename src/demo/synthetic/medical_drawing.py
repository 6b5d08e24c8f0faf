"""Draw synthetic medical figures: grey organs, a scanner's noise, markers and letters of subfigures.

Shapes that never change are in `medical.yaml`.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from src.demo.synthetic.medical_findings import TABLES, Subfigure

OVERSAMPLING = 2
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Canvas:
    """A square grey image; x and y run from 0 to 1, y downwards; grey from 0 to 255."""

    image: Image.Image
    draw: ImageDraw.ImageDraw

    def ellipse(self, x: float, y: float, rx: float, ry: float, grey: float) -> None:
        """Draw a filled ellipse."""
        edge = self.image.width
        box = ((x - rx) * edge, (y - ry) * edge, (x + rx) * edge, (y + ry) * edge)
        self.draw.ellipse(box, fill=round(grey))

    def line(self, points: list[Point], grey: float, width: float) -> None:
        """Draw a line; width is a fraction of the image's edge."""
        edge = self.image.width
        pixels = [(x * edge, y * edge) for x, y in points]
        self.draw.line(pixels, fill=round(grey), width=max(round(width * edge), 1), joint="curve")

    def polygon(self, points: list[Point], grey: float) -> None:
        """Draw a filled polygon."""
        self.draw.polygon([(x * self.image.width, y * self.image.width) for x, y in points], fill=round(grey))

    def shapes(self, name: str) -> None:
        """Draw a table of `medical.yaml`."""
        for form, *cells in map(str.split, TABLES["shapes"][name].splitlines()):
            grey, *numbers = map(float, cells)
            if form == "ellipse":
                x, y, rx, ry = numbers
                self.ellipse(x, y, rx, ry, grey)
            elif form == "line":
                self.line(list(zip(numbers[1::2], numbers[2::2], strict=True)), grey, numbers[0])
            else:
                self.polygon(list(zip(numbers[::2], numbers[1::2], strict=True)), grey)


def draw_figure(figure: tuple[Subfigure, ...], size: int, rng: random.Random) -> Image.Image:
    """Draw a figure, mode L: one image of `size` x `size` pixels, or two side by side with letters A and B."""
    images = [_draw_subfigure(subfigure, size, rng) for subfigure in figure]
    if len(images) == 1:
        return images[0]
    gap = max(size // 32, 1)
    canvas = Image.new("L", (2 * size + gap, size), 255)
    for index, (letter, image) in enumerate(zip("AB", images, strict=True)):
        font = ImageFont.load_default(size / 7)
        ImageDraw.Draw(image).text((size * 0.04, size * 0.01), letter, fill=255, font=font)
        canvas.paste(image, (index * (size + gap), 0))
    return canvas


def _draw_subfigure(subfigure: Subfigure, size: int, rng: random.Random) -> Image.Image:
    edge = size * OVERSAMPLING
    image = Image.new("L", (edge, edge), 6)
    x, y = BODY_PARTS[subfigure.kind](Canvas(image, ImageDraw.Draw(image)), subfigure, rng)
    soft = image.filter(ImageFilter.GaussianBlur(edge / 160)).resize((size, size), Image.Resampling.BOX)
    speckle = 30.0 if subfigure.kind == "ultrasound" else 7.0
    pixels = np.asarray(soft, np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 1, pixels.shape).astype(np.float32)
    grain = noise * speckle * np.sqrt(pixels / 128)  # dark regions, and the air around, stay dark
    image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    if subfigure.marker:
        _draw_marker(Canvas(image, ImageDraw.Draw(image)), subfigure.marker, x, y, rng)
    return image


def _jitter(rng: random.Random, value: float, by: float = 0.015) -> float:
    return value + rng.uniform(-by, by)


# Each draws a body part and returns where its finding is.


def _head(canvas: Canvas, head: Subfigure, rng: random.Random) -> Point:
    """Draw an axial slice: skull, brain, ventricles."""
    ct = head.modality == "ct"
    wide, tall = _jitter(rng, 0.36), _jitter(rng, 0.44)
    canvas.ellipse(0.5, 0.5, wide + 0.03, tall + 0.03, 235 if ct else 150)
    canvas.ellipse(0.5, 0.5, wide, tall, 60 if ct else 15)
    canvas.ellipse(0.5, 0.5, wide - 0.025, tall - 0.025, 105 if ct else 120)
    for fold in range(0 if ct else 28):  # of the cortex
        angle, inner = math.tau * fold / 28, _jitter(rng, 0.82, 0.05)
        u, v = wide * 0.92 * math.cos(angle), tall * 0.92 * math.sin(angle)
        canvas.line([(0.5 + far * u, 0.5 + far * v) for far in (0.97, inner)], 70, 0.008)
    canvas.line([(0.5, 0.5 - tall * 0.9), (0.5, 0.5 + tall * 0.9)], 85 if ct else 70, 0.006)
    canvas.shapes("ventricles")
    if not head.finding:
        return 0.5, 0.5
    x = 0.5 + (0.2 if head.side == "left" else -0.2) * wide / 0.36
    y = {"frontal": 0.27, "parietal": 0.5, "occipital": 0.73}[head.site]
    x, y = _jitter(rng, x), _jitter(rng, y)
    radius = 0.05 if head.size == "small" else 0.1
    if head.size == "large":  # swelling around it
        canvas.ellipse(x, y, radius * 1.25, radius * 1.35, 80 if ct else 175)
    canvas.ellipse(x, y, radius, radius * 1.1, 240 if head.finding == "bright" else 28)
    return x, y


def _chest(canvas: Canvas, chest: Subfigure, rng: random.Random) -> Point:
    """Draw a frontal radiograph: lungs, ribs, heart, diaphragm."""
    for name in ("chest", "enlarged heart" if chest.finding == "heart" else "heart", "diaphragm"):
        canvas.shapes(name)
    x = 0.5 + (0.25 if chest.side == "left" else -0.25)
    if chest.finding == "nodule":
        x, y = _jitter(rng, x, 0.02), _jitter(rng, 0.33 if chest.site == "upper" else 0.66, 0.03)
        radius = 0.035 if chest.size == "small" else 0.075
        canvas.ellipse(x, y, radius, radius, 230)
        return x, y
    if chest.finding == "effusion":
        top = 0.7 if chest.size == "small" else 0.48
        surface = [(x - 0.18, top + 0.05), (x, top + 0.07), (x + 0.18, top)]
        canvas.polygon([*surface, (x + 0.19, 1), (x - 0.19, 1)], 200)
        return x, top + 0.1
    return 0.6, 0.66


def _abdomen(canvas: Canvas, abdomen: Subfigure, rng: random.Random) -> Point:
    """Draw an axial slice: liver, spleen, kidneys, spine, aorta."""
    wide, tall = _jitter(rng, 0.46), _jitter(rng, 0.36)
    canvas.ellipse(0.5, 0.5, wide, tall, 120)
    canvas.ellipse(0.5, 0.5, wide - 0.04, tall - 0.04, 70)
    canvas.shapes("abdomen")
    kidney = (0.7 if abdomen.side == "left" else 0.3, 0.68)
    x, y = {"liver": (0.26, 0.43), "spleen": (0.8, 0.48), "kidney": kidney}[abdomen.site]
    x, y = _jitter(rng, x, 0.02), _jitter(rng, y, 0.02)
    radius = 0.035 if abdomen.size == "small" else 0.075
    if abdomen.finding == "stone":
        canvas.ellipse(x, y, radius * 0.7, radius * 0.5, 255)
    else:
        canvas.ellipse(x, y, radius, radius, 225 if abdomen.finding == "bright" else 45)
    return x, y


def _ultrasound(canvas: Canvas, scan: Subfigure, rng: random.Random) -> Point:
    """Draw a fan of echoes."""
    edge = canvas.image.width
    for depth, grey in ((1.0, 70), (0.75, 85), (0.5, 95)):
        reach = depth * 0.92 * edge
        box = (0.5 * edge - reach, 0.04 * edge - reach, 0.5 * edge + reach, 0.04 * edge + reach)
        canvas.draw.pieslice(box, 48, 132, fill=grey)
    canvas.shapes(scan.site)
    x, y = _jitter(rng, 0.5, 0.1), _jitter(rng, 0.6 if scan.site == "liver" else 0.5, 0.04)
    if scan.finding == "stones":
        canvas.shapes("stones")
        return 0.5, 0.52
    radius = 0.05 if scan.size == "small" else 0.11
    canvas.ellipse(x, y, radius, radius * 0.85, 3 if scan.finding == "cyst" else 225)
    return x, y


def _bone(canvas: Canvas, bone: Subfigure, rng: random.Random) -> Point:
    """Draw a long bone in soft tissue, upright."""
    canvas.shapes(bone.site)
    half = {"femur": 0.07, "humerus": 0.05, "tibia": 0.06}[bone.site] * 1.3
    y = _jitter(rng, {"proximal": 0.3, "middle": 0.51, "distal": 0.72}[bone.level], 0.02)
    slant = 0.09 if bone.finding == "oblique" else 0.0
    canvas.line([(0.5 - half, y + slant), (0.5 + half, y - slant)], 25, 0.028)
    return 0.5, y


BODY_PARTS = {"head": _head, "chest": _chest, "abdomen": _abdomen, "ultrasound": _ultrasound, "bone": _bone}


def _draw_marker(canvas: Canvas, marker: str, x: float, y: float, rng: random.Random) -> None:
    """Draw a white arrow that points at (x, y), or an asterisk beside it."""
    toward = 1 if x < 0.5 else -1
    if marker == "asterisk":
        x += toward * 0.15
        for turn in range(3):
            dx, dy = 0.03 * math.cos(turn * math.pi / 3), 0.03 * math.sin(turn * math.pi / 3)
            canvas.line([(x - dx, y - dy), (x + dx, y + dy)], 255, 0.014)
        return
    tip, tail = (x + toward * 0.08, y + 0.06), (x + toward * 0.22, y + _jitter(rng, 0.18, 0.02))
    canvas.line([tail, tip], 255, 0.02)
    barb, end = (tip[0] + toward * 0.065, tip[1] + 0.01), (tip[0] + toward * 0.02, tip[1] + 0.07)
    canvas.polygon([tip, barb, end], 255)
