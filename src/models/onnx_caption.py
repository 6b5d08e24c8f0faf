"""Caption images with the two ONNX graphs of this folder, by ../generation_config.json, without torch:

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


def encode(pixels: np.ndarray, encoder: Any, beams: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the decoder's keys and values for K beams of an image f32 (1,3,h,w): of its patches, and of no token."""
    cross = [np.repeat(one, beams, 0) for one in encoder.run(None, {"pixel_values": pixels})]
    return cross, [np.zeros((*one.shape[:2], 0, one.shape[3]), np.float32) for one in cross]


def decode(tokens: np.ndarray, decoder: Any, cross: list[Any], past: list[Any]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return logits (K,V) after the newest tokens i64 (K,1), and keys and values of all tokens so far."""
    names = [one.name for one in decoder.get_inputs()]
    logits, *past = decoder.run(None, dict(zip(names, [tokens, *cross, *past], strict=True)))
    return logits, past


def generate(pixels: np.ndarray, graphs: list[Any], settings: dict[str, Any]) -> list[int]:
    """Caption pixels f32 (1,3,h,w) as transformers' `generate` does by generation_config.json; ids, start first."""
    encoder, decoder = graphs
    beams, power = settings.get("num_beams", 1), settings.get("length_penalty", 1.0)
    rng, finished = np.random.default_rng(settings.get("seed", 0)), list[tuple[float, list[int]]]()
    cross, past = encode(pixels, encoder, beams)
    ids = np.full((beams, 1), settings["decoder_start_token_id"])  # (K,T)
    totals = np.array([0.0] + [-1e9] * (beams - 1))  # log-probability of each beam; at first they are all the same
    while ids.shape[1] < settings["max_length"]:
        logits, past = decode(ids[:, -1:], decoder, cross, past)
        scores = (totals[:, None] + adjust(logits.astype(np.float64), ids, settings, rng)).ravel()
        best = np.argsort(-scores, kind="stable")[: 2 * beams]
        rows, tokens = np.divmod(best, logits.shape[1])
        grown, length = np.concatenate([ids[rows], tokens[:, None]], 1), ids.shape[1]
        ends = (tokens == settings["eos_token_id"]) | (length + 1 == settings["max_length"])
        new = [(scores[best[k]] / length**power, grown[k].tolist()) for k in range(beams) if ends[k]]
        finished = sorted(finished + new, key=lambda one: -one[0])[:beams]
        kept = np.flatnonzero(~ends)[:beams]
        if not len(kept) or (finished and beams == 1):
            break
        if len(finished) == beams and scores[best[kept[0]]] / length**power <= finished[-1][0]:
            break  # no open beam is better than a finished one
        ids, totals, past = grown[kept], scores[best[kept]], [one[rows[kept]] for one in past]
    return finished[0][1]


def adjust(scores: np.ndarray, ids: np.ndarray, settings: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Apply penalties to logits (K,V) after ids (K,T), or in a beam search to log-probabilities; sampling adds noise.

    The largest of logits with Gumbel noise is a sample.
    """
    if len(ids) > 1:
        scores = scores - _logsumexp(scores)
    size, penalty = settings.get("no_repeat_ngram_size", 0), settings.get("repetition_penalty", 1.0)
    for row, seen in zip(scores, ids.tolist(), strict=True):
        once = np.unique(seen)
        row[once] = np.where(row[once] < 0, row[once] * penalty, row[once] / penalty)
        for start in range(len(seen) - size + 1 if size else 0):
            if seen[start : start + size - 1] == seen[len(seen) - size + 1 :]:
                row[seen[start + size - 1]] = -np.inf
    if ids.shape[1] < settings.get("min_length", 0):
        scores[:, settings["eos_token_id"]] = -np.inf
    if settings.get("do_sample"):
        scores = scores / settings.get("temperature", 1.0)
        order = np.argsort(scores[0])
        unlikely = np.exp(scores[0, order] - _logsumexp(scores)[0]).cumsum() <= 1 - settings.get("top_p", 1.0)
        scores[0, order[:-1][unlikely[:-1]]] = -np.inf
        scores = scores + rng.gumbel(size=scores.shape)
    return scores


def _logsumexp(scores: np.ndarray) -> np.ndarray:
    top = scores.max(1, keepdims=True)
    return top + np.log(np.exp(scores - top).sum(1, keepdims=True))


def main(paths: list[str]) -> None:
    """Print a caption for each image."""
    folder = Path(__file__).resolve().parent
    saved = folder.parent  # model, tokenizer and image processor that the graphs were made of
    graphs = load_graphs(folder)
    image_settings = json.loads((saved / "preprocessor_config.json").read_text(encoding="utf-8"))
    settings = json.loads((saved / "generation_config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    for path in paths:
        ids = generate(load_pixels(path, image_settings), graphs, settings)
        ids = ids[1:-1] if ids[-1] == settings["eos_token_id"] else ids[1:]
        print(f"{path}: {' '.join(tokenizer.decode(ids).split())}")


if __name__ == "__main__":
    main(sys.argv[1:])
