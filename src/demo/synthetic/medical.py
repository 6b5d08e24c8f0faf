"""Drawn medical figures in the layout of MedICaT: `<name>.jsonl` and `figures/{pdf_hash}_{fig_uri}`.

The bodies are ellipses and the findings are made up: nothing here is a picture or a report of a person. Of
their captions, one a figure, every fact can be seen in the picture.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.demo.synthetic.medical_drawing import draw_figure
from src.demo.synthetic.medical_findings import report, sample_figure
from src.utils.errors import UserError
from src.utils.files import atomic_write

PICTURE_SIZE = 192  # pixels of a panel's edge
INDEX_NAME = "phantoms.jsonl"
LABELS = ("Figure {}. ", "Fig. {}. ", "FIGURE {}: ", "Fig {}. ", "")
LICENCES = ("cc-by", "cc-by-nc", "cc-by-nc-nd", "cc0", None)
MODES = ("L", "L", "L", "RGB", "RGBA", "LA", "P", "I;16")  # of the files


def write_phantoms(out: str | Path, num_images: int, seed: int = 0, size: int = PICTURE_SIZE) -> None:
    """Draw `num_images` figures of made-up papers (1 to 4 figures each) into `out`.

    A paper depends on seed, size and its number alone: a larger set begins with the smaller one. The index
    is written last.

    Raises:
        UserError: a number is too small.
    """
    if num_images < 1 or size < 16:
        raise UserError(
            f"datamodule.num_images={num_images} at {size} pixels; expected at least 1 picture of 16 pixels; "
            "set datamodule.num_images=1000"
        )
    out, done, paper = Path(out), 0, 0
    (out / "figures").mkdir(parents=True, exist_ok=True)
    with atomic_write(out / INDEX_NAME) as file:
        while done < num_images:
            for record, picture in _paper(seed, paper, size)[: num_images - done]:
                picture.save(out / "figures" / f"{record['pdf_hash']}_{record['fig_uri']}")
                file.write(json.dumps(record) + "\n")
                done += 1
            paper += 1


def _paper(seed: int, number: int, size: int) -> list[tuple[dict[str, Any], Image.Image]]:
    rng = random.Random(f"phantoms:{seed}:{number}")
    pdf_hash = hashlib.sha1(f"phantoms:{seed}:{number}".encode()).hexdigest()
    licence, label = rng.choice(LICENCES), rng.choice(LABELS)
    figures = []
    for figure in range(1, rng.choice((1, 2, 2, 3, 4)) + 1):
        panels = sample_figure(rng)
        caption = label.format(figure) + report(panels, rng)
        picture = _as_mode(draw_figure(panels, size, rng), rng.choice(MODES))
        record = {
            "pdf_hash": pdf_hash,
            "fig_key": f"Figure{figure}",
            "fig_uri": f"{figure + 1}-Figure{figure}-1.png",
            "s2_caption": caption if rng.random() < 0.9 else None,  # the other field stands in for it
            "s2orc_caption": caption,
            "s2orc_references": None,
            "radiology": True,
            "scope": False,
            "predicted_type": "Medical images",
            "oa_info": {"doi": None, "doi_url": None, "oa": {"is_oa": True, "license": licence}},
        }
        figures.append((record, picture))
    return figures


def _as_mode(picture: Image.Image, mode: str) -> Image.Image:
    """The grey picture as a file of another PNG mode, as the figures of real papers come."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture, np.uint16) * 257)
    if mode in ("LA", "RGBA"):
        mask = Image.new("L", picture.size, 255)
        mask.paste(0, (0, picture.height - picture.height // 32, picture.width, picture.height))
        picture = picture.convert(mode[:-1])
        picture.putalpha(mask)
        return picture
    return picture.convert(mode)
