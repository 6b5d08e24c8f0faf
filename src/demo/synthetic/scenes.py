"""Captioned scenes that are drawn here, in the layout of Flickr8k: `captions.txt` and `Images/`.

With them everything runs where there is no download. What a picture shows is known exactly, so its captions
are true: colours, counts, sizes and places can be read from the picture alone.
"""

import csv
import random
from pathlib import Path

from src.demo.synthetic.scene import STYLES, sample_scene
from src.demo.synthetic.scene_captions import tell_scene
from src.demo.synthetic.scene_drawing import draw_scene
from src.utils.errors import UserError
from src.utils.files import atomic_write

PICTURE_SIZE = 192  # pixels
CAPTIONS_PER_IMAGE = 5


def write_scenes(
    out: str | Path, num_images: int, style: str = "plain", seed: int = 0, size: int = PICTURE_SIZE
) -> None:
    """Draw `num_images` scenes with five captions each into `out`.

    Scene i depends on style, seed, size and i alone: a larger set begins with the smaller one. Written are
    `Images/<style>_<i>.jpg` and, when they are all there, `captions.txt` with the header `image,caption`.

    Raises:
        UserError: an unknown style, or a number that is too small.
    """
    if style not in STYLES:
        raise UserError(
            f"datamodule.style={style!r}; expected one of {', '.join(STYLES)}; "
            f"set datamodule.style={STYLES[0]}"
        )
    if num_images < 1 or size < 16:
        raise UserError(
            f"datamodule.num_images={num_images} at {size} pixels; expected at least 1 picture of 16 pixels; "
            "set datamodule.num_images=1000"
        )
    out = Path(out)
    (out / "Images").mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "captions.txt") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "caption"])
        for index in range(num_images):
            rng = random.Random(f"{style}:{seed}:{index}")
            scene = sample_scene(rng, style)
            captions = tell_scene(scene, rng, CAPTIONS_PER_IMAGE)
            name = f"{style}_{index:05d}.jpg"
            draw_scene(scene, size, rng).save(out / "Images" / name, quality=90)
            writer.writerows([name, caption] for caption in captions)
