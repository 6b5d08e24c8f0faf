"""Synthetic datasets in the layouts of Flickr8k and MedICaT, generated on first use: no download needed.

Everything that captions state (colours, counts, sizes, places, findings) can be read from the images. The bodies
are ellipses and the findings are invented: nothing here is an image or a report of a person.
"""

import csv
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from src.datamodule.flickr import FlickrDataModule
from src.datamodule.medicat import MedicatDataModule
from src.demo.synthetic.medical import draw_figure, report, sample_figure
from src.demo.synthetic.scene_drawing import draw_scene
from src.demo.synthetic.scenes import STYLES, describe_scene, sample_scene
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)

IMAGE_SIZE = 192  # pixels of the edge of an image or subfigure
LABELS = ("Figure {}. ", "Fig. {}. ", "FIGURE {}: ", "Fig {}. ", "")
LICENSES = ("cc-by", "cc-by-nc", "cc-by-nc-nd", "cc0", None)
MODES = ("L", "L", "L", "RGB", "RGBA", "LA", "P", "I;16")  # of the PNG files
UNFINISHED = ".synthetic_dataset_unfinished"  # marker of a folder that is being generated


class SyntheticFlickrDataModule(FlickrDataModule):
    """Synthetic scenes in Flickr8k's layout.

    style, num_images, drawing_seed, image_size: see `write_scenes`; the folder's name should hold them,
    since an existing folder is not generated again. common: the arguments of `FlickrDataModule`.
    """

    def __init__(
        self,
        data_dir: str | Path,
        style: str,
        num_images: int,
        drawing_seed: int = 0,
        image_size: int = IMAGE_SIZE,
        **common: Any,
    ) -> None:
        super().__init__(data_dir, **common)
        self.write = partial(write_scenes, num_images=num_images, style=style, seed=drawing_seed, size=image_size)

    def prepare_data(self) -> None:
        """Generate the dataset unless its folder exists."""
        generate_once(Path(self.data_dir), self.write)


class SyntheticMedicalDataModule(MedicatDataModule):
    """Synthetic medical figures in MedICaT's layout: as `SyntheticFlickrDataModule`, with `write_medical`."""

    def __init__(
        self,
        data_dir: str | Path,
        num_images: int,
        drawing_seed: int = 0,
        image_size: int = IMAGE_SIZE,
        **common: Any,
    ) -> None:
        super().__init__(data_dir, **common)
        self.write = partial(write_medical, num_images=num_images, seed=drawing_seed, size=image_size)

    def prepare_data(self) -> None:
        """Generate the dataset unless its folder exists."""
        generate_once(Path(self.data_dir), self.write)


def generate_once(data_dir: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a hidden folder beside `data_dir` and rename it when complete; one process at a time.

    What a killed process left of it is removed first, known by its marker file.
    """
    folder = data_dir.with_name(f".{data_dir.name}.unfinished")
    if data_dir.is_dir():
        return
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if data_dir.is_dir():  # another process was faster
            return
        log.info("generating a synthetic dataset in %s", data_dir)
        if (folder / UNFINISHED).is_file():
            shutil.rmtree(folder)
        folder.mkdir()
        try:
            (folder / UNFINISHED).touch()
            write(folder)
            (folder / UNFINISHED).unlink()
            folder.rename(data_dir)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def write_scenes(out: str | Path, num_images: int, style: str = "plain", seed: int = 0, size: int = IMAGE_SIZE) -> None:
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


def write_medical(out: str | Path, num_images: int, seed: int = 0, size: int = IMAGE_SIZE) -> None:
    """Draw figures of invented papers (1 to 4 figures each) into `out`: `figures/` and a .jsonl index.

    A paper depends on seed, size and its number alone: a larger dataset begins with the smaller one.
    Raises UserError for a number that is too small.
    """
    folder = _make_folder(Path(out) / "figures", num_images, size)
    done = paper = 0
    with atomic_write(Path(out) / "synthetic_medical.jsonl") as file:
        while done < num_images:
            for record, image in _paper(seed, paper, size)[: num_images - done]:
                image.save(folder / f"{record['pdf_hash']}_{record['fig_uri']}")
                file.write(json.dumps(record) + "\n")
                done += 1
            paper += 1


def _make_folder(folder: Path, num_images: int, size: int) -> Path:
    if num_images < 1 or size < 16:
        raise UserError(
            f"datamodule.num_images={num_images} at {size} pixels; expected at least 1 image of 16 pixels; "
            "set datamodule.num_images=1000"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _paper(seed: int, number: int, size: int) -> list[tuple[dict[str, Any], Image.Image]]:
    """Return the records and images of one paper."""
    name = f"phantoms:{seed}:{number}"
    rng, pdf_hash = random.Random(name), hashlib.sha1(name.encode()).hexdigest()
    license_name, label = rng.choice(LICENSES), rng.choice(LABELS)
    figures = []
    for number in range(1, rng.choice((1, 2, 2, 3, 4)) + 1):
        figure = sample_figure(rng)
        caption = label.format(number) + report(figure, rng)
        image = _convert(draw_figure(figure, size, rng), rng.choice(MODES))
        record = {
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
        }
        figures.append((record, image))
    return figures


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Convert a grey image to another PNG mode, as the figures of real papers come."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(image, np.uint16) * 257)
    if mode in ("LA", "RGBA"):
        mask = Image.new("L", image.size, 255)
        mask.paste(0, (0, image.height - image.height // 32, *image.size))
        image = image.convert(mode[:-1])
        image.putalpha(mask)
        return image
    return image.convert(mode)
