"""Caption images with the two ONNX graphs of this folder, greedily, without torch:

pip install onnxruntime pillow tokenizers
python caption.py image.jpg another.png
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer


def read_image(path: str) -> Image.Image:
    """Read RGB pixels as in training: turned as EXIF says, transparency over white, 16 bits scaled to 8."""
    data = io.BytesIO(Path(path).read_bytes())  # a mapped TIFF would be turned twice
    image = ImageOps.exif_transpose(Image.open(data))
    if image.mode.startswith("I") or image.mode == "F":
        gray = np.asarray(image, np.float64)
        scale = 255 / 65535 if image.mode != "F" else 255 if gray.max() <= 1 else 1
        return Image.fromarray(np.rint(gray * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def load_pixels(path: str, settings: dict[str, Any]) -> np.ndarray:
    """Resize, crop and normalize an image for the encoder: f32 (1,3,h,w)."""
    image = read_image(path)
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


def load_graphs(folder: Path) -> list[Any]:
    """Open the encoder and the decoder."""
    names = ("encoder.onnx", "decoder.onnx")
    return [onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"]) for name in names]


def generate(pixels: np.ndarray, graphs: list[Any], settings: dict[str, Any]) -> tuple[list[int], list[Any]]:
    """Caption pixels f32 (1,3,h,w) greedily; returns ids, the start token first, and the logits (V) of each other."""
    encoder, decoder = graphs
    cross = encoder.run(None, {"pixel_values": pixels})
    past = [np.zeros((1, patches.shape[1], 0, patches.shape[3]), np.float32) for patches in cross]
    names = [one.name for one in decoder.get_inputs()]
    ids, scores = [settings["decoder_start_token_id"]], []
    while len(ids) < settings["max_length"] and (len(ids) == 1 or ids[-1] != settings["eos_token_id"]):
        inputs = [np.array([ids[-1:]]), *cross, *past]
        logits, *past = decoder.run(None, dict(zip(names, inputs, strict=True)))
        ids.append(int(logits[0].argmax()))
        scores.append(logits[0])
    return ids, scores


def main(paths: list[str]) -> None:
    """Print a caption for each image."""
    folder = Path(__file__).resolve().parent
    saved = folder.parent  # model, tokenizer and image processor that the graphs were made of
    graphs = load_graphs(folder)
    image_settings = json.loads((saved / "preprocessor_config.json").read_text(encoding="utf-8"))
    settings = json.loads((saved / "generation_config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    for path in paths:
        ids, _ = generate(load_pixels(path, image_settings), graphs, settings)
        ids = ids[1:-1] if ids[-1] == settings["eos_token_id"] else ids[1:]
        print(f"{path}: {' '.join(tokenizer.decode(ids).split())}")


if __name__ == "__main__":
    main(sys.argv[1:])
