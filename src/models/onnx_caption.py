"""Caption pictures with the two graphs of this folder, greedily, without torch:

pip install onnxruntime pillow tokenizers
python caption.py picture.jpg another.png
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parent
SAVED = FOLDER.parent  # model, tokenizer and image processor of which the graphs were made


def pixels_of(path: str, settings: dict[str, Any]) -> np.ndarray:
    """A picture as the encoder wants it: f32 (1,3,h,w)."""
    image = Image.open(path).convert("RGB")
    size = settings["size"]
    if "shortest_edge" in size:
        scale = size["shortest_edge"] / min(image.size)
        width, height = (int(side * scale) for side in image.size)
    else:
        width, height = size["width"], size["height"]
    values = np.asarray(image.resize((width, height), Image.Resampling(settings["resample"])), np.float32)
    if settings.get("do_center_crop"):
        crop = settings["crop_size"]
        top, left = (height - crop["height"]) // 2, (width - crop["width"]) // 2
        values = values[top : top + crop["height"], left : left + crop["width"]]
    values = values * settings.get("rescale_factor", 1 / 255)
    values = (values - settings["image_mean"]) / settings["image_std"]
    return values.transpose(2, 0, 1)[None].astype(np.float32)


def caption(pixels: np.ndarray, encoder: Any, decoder: Any, how: dict[str, Any]) -> list[int]:
    """Token ids of the greedy caption of pixels f32 (1,3,h,w), without start and end."""
    cross = encoder.run(None, {"pixel_values": pixels})
    past = [np.zeros((1, patches.shape[1], 0, patches.shape[3]), np.float32) for patches in cross]
    names = [one.name for one in decoder.get_inputs()]
    ids = [how["decoder_start_token_id"]]
    while len(ids) < how["max_length"]:
        given = [np.array([ids[-1:]]), *cross, *past]
        logits, *past = decoder.run(None, dict(zip(names, given, strict=True)))
        ids.append(int(logits[0].argmax()))
        if ids[-1] == how["eos_token_id"]:
            return ids[1:-1]
    return ids[1:]


def main(paths: list[str]) -> None:
    """Print a caption for each picture."""
    encoder, decoder = (
        onnxruntime.InferenceSession(FOLDER / name) for name in ("encoder.onnx", "decoder.onnx")
    )
    settings = json.loads((SAVED / "preprocessor_config.json").read_text(encoding="utf-8"))
    how = json.loads((SAVED / "generation_config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(SAVED / "tokenizer.json"))
    for path in paths:
        words = tokenizer.decode(caption(pixels_of(path, settings), encoder, decoder, how))
        print(f"{path}: {' '.join(words.split())}")


if __name__ == "__main__":
    main(sys.argv[1:])
