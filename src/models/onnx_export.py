"""Export a captioner as two ONNX graphs in fp32, checked token by token against torch.

encoder.onnx: pixel_values f32 (B,3,h,w) -> cross.N.key, cross.N.value f32 (B,H,P,d) for block N of the decoder.
decoder.onnx: input_ids i64 (B,1), cross.N.*, past.N.* f32 (B,H,T,d) -> logits f32 (B,V) of the next token and
present.N.* f32 (B,H,T+1,d), `past` of the next step. Generation begins with the start token and T = 0.

B images, T tokens so far, P patches, N blocks, H heads, d width of a head, V vocabulary, h x w pixels.
"""

import shutil
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxscript  # noqa: F401 -- torch's exporter needs it
import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers import VisionEncoderDecoderModel as Model

from src.datamodule.processor import Processor
from src.models import onnx_caption
from src.models.checkpoint import find_os_error
from src.models.generation import generate_ids, generation_config
from src.models.kernels.attention import eager_attention
from src.models.loss import project_states
from src.utils.errors import UserError

TOLERANCE = 1e-3  # of logits; a wrong mask or position differs by far more
CHECKED_IMAGES = 8


class EncoderGraph(nn.Module):
    """Map pixels to the keys and values that every block of the decoder attends to."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        states = project_states(self.model, self.model.encoder(pixel_values).last_hidden_state)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = torch.zeros(pixel_values.shape[0], 1, dtype=torch.long, device=states.device)
        # The token's own output is not used and drops out of the graph.
        self.model.decoder(start, encoder_hidden_states=states, past_key_values=cache, use_cache=True)
        return _flatten_cache(cache.cross_attention_cache)


class DecoderGraph(nn.Module):
    """Map the newest token and the cache to the logits of the next token."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, input_ids: Tensor, cross: list[Tensor], past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        caches = [DynamicCache(list(zip(flat[::2], flat[1::2], strict=True))) for flat in (past, cross)]
        cache = EncoderDecoderCache(*caches)
        cache.is_updated = dict.fromkeys(range(len(cross) // 2), True)
        # Only their shape is used: keys and values of the patches are in the cache.
        states = cross[0].new_zeros(1, 1, 1).expand(input_ids.shape[0], cross[0].shape[2], 1)
        output = self.decoder(input_ids, encoder_hidden_states=states, past_key_values=cache, use_cache=True)
        return output.logits[:, -1], _flatten_cache(cache.self_attention_cache)


def _flatten_cache(cache: Any) -> list[Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def write_onnx(model: Model, processor: Processor, folder: Path, generation: Mapping[str, Any]) -> str:
    """Write both graphs and `caption.py`, which captions with them; returns what the check found, in one line.

    model: on the CPU, in fp32 and eval mode. UserError where it cannot be exported, OSError on a full disk.
    """
    folder.mkdir(parents=True)
    try:
        with eager_attention(model), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _export_graphs(model, torch.zeros(2, 3, processor.image.height, processor.image.width), folder)
    except Exception as error:  # the exporter raises nearly anything on a model that it does not understand
        if disk_error := find_os_error(error):
            raise disk_error from error
        kinds = f"{type(model.encoder).__name__} and {type(model.decoder).__name__}"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        expected = "expected ViT and GPT-2 or the like; set onnx=false"
        raise UserError(f"onnx=true: {kinds} cannot be exported to ONNX ({reason}); {expected}") from error
    shutil.copyfile(onnx_caption.__file__, folder / "caption.py")
    return check_graphs(model, processor, folder, generation)


def _export_graphs(model: Model, pixels: Tensor, folder: Path) -> None:
    export = partial(torch.onnx.export, opset_version=18, dynamo=True, external_data=False, verbose=False)
    batch, free = {0: torch.export.Dim.DYNAMIC}, torch.export.Dim.DYNAMIC
    encoder, decoder = EncoderGraph(model).eval(), DecoderGraph(model).eval()
    cross = encoder(pixels)
    past = [patches.new_zeros(*patches.shape[:2], 3, patches.shape[3]) for patches in cross]
    ids = torch.zeros(len(pixels), 1, dtype=torch.long)
    suffixes = [f"{block}.{name}" for block in range(len(cross) // 2) for name in ("key", "value")]
    cross_names, past_names, present_names = (
        [f"{kind}.{suffix}" for suffix in suffixes] for kind in ("cross", "past", "present")
    )
    export(
        encoder, (pixels,), folder / "encoder.onnx", input_names=["pixel_values"], output_names=cross_names,
        dynamic_shapes={"pixel_values": batch},
    )  # fmt: skip
    export(
        decoder, (ids, cross, past), folder / "decoder.onnx", input_names=["input_ids", *cross_names, *past_names],
        output_names=["logits", *present_names],
        dynamic_shapes={"input_ids": batch, "cross": [batch] * len(cross), "past": [{0: free, 2: free}] * len(past)},
    )  # fmt: skip


def check_graphs(model: Model, processor: Processor, folder: Path, generation: Mapping[str, Any]) -> str:
    """Caption random images with `caption.py`, without sampling; UserError where its logits are not torch's."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (CHECKED_IMAGES, 3, 6, 8), dtype=torch.uint8, generator=generator)
    encoder, decoder = graphs = onnx_caption.load_graphs(folder)
    config = generation_config(processor, {**generation, "do_sample": False})
    settings, difference, same = config.to_diff_dict(), 0.0, 0
    for image in noise:
        pixels = processor.image(image)[None]  # (1,3,h,w)
        ids = onnx_caption.generate(pixels.numpy(), graphs, settings)
        with torch.no_grad():
            expected = model(pixels, decoder_input_ids=torch.tensor([ids[:-1]])).logits[0].numpy()  # (T,V)
            states = model.encoder(pixels).last_hidden_state
        cross, past = onnx_caption.encode(pixels.numpy(), encoder)
        for token, logits in zip(ids, expected, strict=False):
            ours, past = onnx_caption.decode(np.array([[token]]), decoder, cross, past)
            difference = max(difference, float(np.abs(ours[0] - logits).max()))
        same += ids == generate_ids(model, states, config)[0].tolist()
    found = f"{same} of {CHECKED_IMAGES} captions have torch's tokens, logits differ by {difference:.1e}"
    if not difference <= TOLERANCE:
        raise UserError(f"onnx=true: {found}; expected at most {TOLERANCE:.0e}; set onnx=false, and report the model")
    return f"{folder.name}: {found}"
