"""Synthetic datasets in the layouts of Flickr8k and MedICaT, generated on first use: no download needed.

Everything that captions state (colours, counts, sizes, places, findings) can be read from the images. The bodies
are ellipses and the findings are invented: nothing here is an image or a report of a person.
"""

import csv
import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.datamodule.flickr import FlickrDataModule
from src.datamodule.medicat import MedicatDataModule
from src.demo.synthetic.medical import draw_figure, report, sample_figure
from src.demo.synthetic.scene_drawing import draw_scene
from src.demo.synthetic.scenes import STYLES, describe_scene, sample_scene
from src.utils.errors import UserError
from src.utils.files import atomic_write, create_folder_once

LABELS = ("Figure {}. ", "Fig. {}. ", "FIGURE {}: ", "Fig {}. ", "")
LICENSES = ("cc-by", "cc-by-nc", "cc-by-nc-nd", "cc0", None)
MODES = ("L", "L", "L", "RGB", "RGBA", "LA", "P", "I;16")  # of the PNG files


class SyntheticFlickrDataModule(FlickrDataModule):
    """Synthetic scenes in Flickr8k's layout, generated where `data_dir` does not exist.

    style, num_images, drawing_seed, image_size: see `write_scenes`. common: the arguments of `FlickrDataModule`.
    """

    def __init__(
        self,
        data_dir: str | Path,
        style: str,
        num_images: int,
        drawing_seed: int = 0,
        image_size: int = 192,
        **common: Any,
    ) -> None:
        super().__init__(data_dir, **common)
        self.write = partial(write_scenes, num_images=num_images, style=style, seed=drawing_seed, size=image_size)

    def prepare_data(self) -> None:
        """Generate the dataset unless its folder exists."""
        create_folder_once(self.data_dir, self.write)


class SyntheticMedicalDataModule(MedicatDataModule):
    """Synthetic medical figures in MedICaT's layout: as `SyntheticFlickrDataModule`, with `write_medical`."""

    def __init__(
        self, data_dir: str | Path, num_images: int, drawing_seed: int = 0, image_size: int = 192, **common: Any
    ) -> None:
        super().__init__(data_dir, **common)
        self.write = partial(write_medical, num_images=num_images, seed=drawing_seed, size=image_size)

    def prepare_data(self) -> None:
        """Generate the dataset unless its folder exists."""
        create_folder_once(self.data_dir, self.write)


def write_scenes(out: str | Path, num_images: int, style: str = "plain", seed: int = 0, size: int = 192) -> None:
    """Draw scenes with five captions each into `out`: `Images/<style>_<i>.jpg` and `captions.txt`.

    Scene i depends on style, seed, size and i alone: a larger dataset begins with the smaller one.
    Raises UserError for an unknown style, or a number that is too small.
    """
    if style not in STYLES:
        raise UserError(f"datamodule.style={style!r}; expected plain or night; set datamodule.style=plain")
    folder = _make_folder(Path(out) / "Images", num_images, size)
    with atomic_write(Path(out) / "captions.txt") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "caption"])
        for index in range(num_images):
            rng = random.Random(f"{style}:{seed}:{index}")
            scene = sample_scene(rng, style)
            captions = describe_scene(scene, rng)
            name = f"{style}_{index:05d}.jpg"
            draw_scene(scene, size, rng).save(folder / name, quality=90)
            writer.writerows([name, caption] for caption in captions)


def write_medical(out: str | Path, num_images: int, seed: int = 0, size: int = 192) -> None:
    """Draw figures of invented papers (1 to 4 figures each) into `out`: `figures/` and a .jsonl index.

    A paper depends on seed, size and its number alone: a larger dataset begins with the smaller one.
    Raises UserError for a number that is too small.
    """
    folder = _make_folder(Path(out) / "figures", num_images, size)
    papers = (_paper(seed, number, size) for number in itertools.count())
    with atomic_write(Path(out) / "synthetic_medical.jsonl") as file:
        for record, image in itertools.islice(itertools.chain.from_iterable(papers), num_images):
            image.save(folder / f"{record['pdf_hash']}_{record['fig_uri']}")
            file.write(json.dumps(record) + "\n")


def _make_folder(folder: Path, num_images: int, size: int) -> Path:
    if num_images < 1 or size < 16:
        found = f"datamodule.num_images={num_images} at {size} pixels"
        raise UserError(f"{found}; expected at least 1 image of 16 pixels; set datamodule.num_images=1000")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _paper(seed: int, number: int, size: int) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """Yield the records and images of one paper."""
    name = f"phantoms:{seed}:{number}"
    rng, pdf_hash = random.Random(name), hashlib.sha1(name.encode()).hexdigest()
    license_name, label = rng.choice(LICENSES), rng.choice(LABELS)
    for number in range(1, rng.choice((1, 2, 2, 3, 4)) + 1):
        figure = sample_figure(rng)
        caption = label.format(number) + report(figure, rng)
        image = _convert(draw_figure(figure, size, rng), rng.choice(MODES))
        yield (
            {
                "pdf_hash": pdf_hash,
                "fig_key": f"Figure{number}",
                "fig_uri": f"{number + 1}-Figure{number}-1.png",
                "s2_caption": caption if rng.random() < 0.9 else None,  # the reader falls back on the other field
                "s2orc_caption": caption,
                "s2orc_references": None,
                "radiology": True,
                "scope": False,
                "predicted_type": "Medical images",
                "oa_info": {"doi": None, "doi_url": None, "oa": {"is_oa": True, "license": license_name}},
            },
            image,
        )


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Convert a grey image to another PNG mode, as the figures of real papers come."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(image, np.uint16) * 257)
    if mode not in ("LA", "RGBA"):
        return image.convert(mode)
    mask = Image.new("L", image.size, 255)
    mask.paste(0, (0, image.height - image.height // 32, *image.size))
    image = image.convert(mode[:-1])
    image.putalpha(mask)
    return image
