"""The captioner as two ONNX graphs, checked token by token against torch.

encoder.onnx: pixel_values f32 (B,3,h,w) -> cross.N.key, cross.N.value f32 (B,H,P,d), the patches as block N of
the decoder attends to them.

decoder.onnx: input_ids i64 (B,1), cross.N.*, past.N.key, past.N.value f32 (B,H,T,d) -> logits f32 (B,V) of the
next token, present.N.* f32 (B,H,T+1,d), which is `past` of the next step. Generation begins with the start token
and T = 0.

So the patches go through the cross-attention's weights once per picture, and not once per token.

B images, T tokens so far, P patches, N blocks, H heads, d width of a head, V vocabulary, h x w pixels.
"""

import importlib.util
import random
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, VisionEncoderDecoderModel

from src.datamodule.images.decode import from_pillow
from src.datamodule.processor import Processor
from src.demo.synthetic.scene import sample_scene
from src.demo.synthetic.scene_drawing import draw_scene
from src.models.generation import generate_ids
from src.models.loss import project_states
from src.utils.errors import UserError

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
TOLERANCE = 1e-3  # of logits; a wrong mask or position is off by far more
OPSET = 18
PICTURES = 8  # that are drawn to check the graphs with


class EncoderGraph(nn.Module):
    """Pixels to the keys and values that every block of the decoder attends to."""

    def __init__(self, model: VisionEncoderDecoderModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """f32 (B,3,h,w) to key and value of each block, f32 (B,H,P,d)."""
        states = project_states(self.model, self.model.encoder(pixel_values).last_hidden_state)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = torch.zeros(pixel_values.shape[0], 1, dtype=torch.long, device=states.device)
        # What a token gets out of it is not looked at and falls out of the graph.
        self.model.decoder(start, encoder_hidden_states=states, past_key_values=cache, use_cache=True)
        return _flat(cache.cross_attention_cache)


class DecoderGraph(nn.Module):
    """One step: the newest token to the logits of the next."""

    def __init__(self, model: VisionEncoderDecoderModel) -> None:
        super().__init__()
        self.decoder: Any = model.decoder

    def forward(
        self, input_ids: Tensor, cross: list[Tensor], past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """i64 (B,1), key and value of each block for patches (B,H,P,d) and tokens (B,H,T,d)."""
        cache = EncoderDecoderCache(_cache(past), _cache(cross))
        cache.is_updated = dict.fromkeys(range(len(cross) // 2), True)
        # Only its shape is asked for: keys and values of the patches are in the cache.
        states = cross[0].new_zeros(1, 1, 1).expand(input_ids.shape[0], cross[0].shape[2], 1)
        logits = self.decoder(
            input_ids, encoder_hidden_states=states, past_key_values=cache, use_cache=True
        ).logits
        return logits[:, -1], _flat(cache.self_attention_cache)


def _flat(cache: Any) -> list[Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def _cache(flat: Sequence[Tensor]) -> DynamicCache:
    return DynamicCache(list(zip(flat[::2], flat[1::2], strict=True)))


def check_packages() -> None:
    """See that what writes and runs ONNX is installed, without importing it.

    Raises:
        UserError: a package is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"onnx=true needs {', '.join(missing)}, not installed; expected the extra onnx; "
            f"pip install {' '.join(missing)}"
        )


def graph_names(blocks: int, kind: str) -> list[str]:
    """`cross.0.key`, `cross.0.value`, `cross.1.key`, ..."""
    return [f"{kind}.{block}.{part}" for block in range(blocks) for part in ("key", "value")]


def write_onnx(
    model: VisionEncoderDecoderModel, preprocessing: Processor, folder: Path, max_length: int
) -> str:
    """Write both graphs and `caption.py`, which captions with them; what the check found, in one line.

    The model is on the CPU, in fp32 and eval mode; the graphs are fp32 too.

    Raises:
        UserError: a package is missing, the model cannot be written as ONNX, or the graphs say something else.
    """
    check_packages()
    folder.mkdir(parents=True)
    image = preprocessing.image
    pixels = torch.zeros(2, 3, image.height, image.width)
    try:
        with eager_attention(model), torch.no_grad():
            cross = EncoderGraph(model)(pixels)
            _write_encoder(model, pixels, folder / ENCODER, len(cross) // 2)
            _write_decoder(model, cross, folder / DECODER)
    except Exception as error:  # the exporter raises nearly anything on a model that it does not understand
        kinds = f"{type(model.encoder).__name__} and {type(model.decoder).__name__}"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"onnx=true: {kinds} cannot be written as ONNX ({reason}); expected ViT and GPT-2 or the like; "
            "set onnx=false"
        ) from error
    shutil.copyfile(Path(__file__).with_name("onnx_caption.py"), folder / "caption.py")
    return check_graphs(model, preprocessing, folder, max_length)


@contextmanager
def eager_attention(model: VisionEncoderDecoderModel) -> Iterator[None]:
    """Inside, attention is written in plain products, which every exporter knows."""
    halves: list[Any] = [
        half for half in (model.encoder, model.decoder) if half._can_set_attn_implementation()
    ]
    before = [half.config._attn_implementation for half in halves]
    try:
        for half in halves:
            half.set_attn_implementation("eager")
        yield
    finally:
        for half, name in zip(halves, before, strict=True):
            half.set_attn_implementation(name)


def _write_encoder(model: VisionEncoderDecoderModel, pixels: Tensor, path: Path, blocks: int) -> None:
    _write(EncoderGraph(model), (pixels,), path, ["pixel_values"], graph_names(blocks, "cross"),
           {"pixel_values": {0: torch.export.Dim.DYNAMIC}})  # fmt: skip


def _write_decoder(model: VisionEncoderDecoderModel, cross: Sequence[Tensor], path: Path) -> None:
    free, blocks = torch.export.Dim.DYNAMIC, len(cross) // 2
    past = [patches.new_zeros(*patches.shape[:2], 3, patches.shape[3]) for patches in cross]
    ids = torch.zeros(len(cross[0]), 1, dtype=torch.long)
    names = ["input_ids", *graph_names(blocks, "cross"), *graph_names(blocks, "past")]
    shapes = {
        "input_ids": {0: free},
        "cross": [{0: free}] * len(cross),
        "past": [{0: free, 2: free}] * len(past),
    }
    outputs = ["logits", *graph_names(blocks, "present")]
    _write(DecoderGraph(model), (ids, list(cross), past), path, names, outputs, shapes)


def _write(
    graph: nn.Module, example: tuple[Any, ...], path: Path, inputs: list[str], outputs: list[str], shapes: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(), example, path, input_names=inputs, output_names=outputs, dynamic_shapes=shapes,
            opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip


def check_graphs(
    model: VisionEncoderDecoderModel, preprocessing: Processor, folder: Path, max_length: int
) -> str:
    """Let onnxruntime say the tokens of torch's greedy captions of drawn pictures; what was found, in one line.

    Raises:
        UserError: logits differ by more than rounding.
    """
    pixels = torch.stack([preprocessing.image(picture) for picture in _drawn()])  # (B,3,h,w)
    with torch.no_grad():
        states = model.encoder(pixels).last_hidden_state
        ids = generate_ids(model, preprocessing, states, max_length, num_beams=1)  # (B,T)
        projected = project_states(model, states)
        expected = model.decoder(
            ids, encoder_hidden_states=projected, use_cache=False
        ).logits.numpy()  # (B,T,V)
    said = follow(folder, pixels.numpy(), ids.numpy())  # (B,T,V)
    ended = np.cumsum(ids[:, 1:].numpy() == preprocessing.eos_id, axis=1)
    counts = ended - (ids[:, 1:].numpy() == preprocessing.eos_id) == 0  # (B,T-1) up to the first EOS
    same = (said[:, :-1].argmax(-1) == ids[:, 1:].numpy())[counts]
    difference = float(np.abs(said - expected)[:, :-1][counts].max())
    found = f"{same.sum()} of {same.size} tokens of {len(ids)} pictures are torch's, logits differ by {difference:.1e}"
    if not difference <= TOLERANCE:
        raise UserError(
            f"onnx=true: {found}; expected at most {TOLERANCE:.0e}; set onnx=false, and report the model's kind"
        )
    return f"{folder.name}: {found}"


def follow(folder: Path, pixels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Logits f32 (B,T,V) that the graphs give when they are led along ids i64 (B,T), one token at a time.

    pixels: f32 (B,3,h,w).
    """
    import onnxruntime

    encoder, decoder = (
        onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        for name in (ENCODER, DECODER)
    )
    cross = encoder.run(None, {"pixel_values": pixels})
    past = [np.zeros((*patches.shape[:2], 0, patches.shape[3]), np.float32) for patches in cross]
    names = [one.name for one in decoder.get_inputs()]
    logits = []
    for place in range(ids.shape[1]):
        given = [ids[:, place : place + 1], *cross, *past]
        next_logits, *past = decoder.run(None, dict(zip(names, given, strict=True)))
        logits.append(next_logits)
    return np.stack(logits, axis=1)


def _drawn() -> list[Tensor]:
    """Pictures of coloured things, uint8 (3,H,W)."""
    pictures = []
    for number in range(PICTURES):
        chance = random.Random(number)
        pictures.append(from_pillow(draw_scene(sample_scene(chance, "plain"), 128, chance)))
    return pictures
