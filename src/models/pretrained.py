"""Load a captioner from a hub id or a folder: model and processor; or join a pretrained encoder and decoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForCausalLM
from transformers import VisionEncoderDecoderModel as Model

from src.datamodule.processor import Processor, load_processor, with_image_size
from src.models.checkpoint import check_finite
from src.utils.errors import UserError
from src.utils.hub import KNOWN_ID, find_source, load_pretrained, silence_transformers


class PretrainedCaptioner(NamedTuple):
    """A captioner in fp32 and eval mode."""

    model: Model
    processor: Processor
    base_id: str  # hub id (with `@revision`) or folder
    new_weights: frozenset[str] = frozenset()  # names of newly initialized weights, which must train


def load_captioner(
    checkpoint: str | None = None,
    revision: str | None = None,
    from_encoder_decoder: Mapping[str, str] | None = None,
    seed: int = 0,
    processor: Processor | None = None,
) -> PretrainedCaptioner:
    """Load a VisionEncoderDecoder checkpoint, a hub id or a folder, or join an `encoder` and a `decoder`.

    seed: of newly initialized weights. processor: of the same checkpoint; None loads it. Raises UserError where
    something is missing, inconsistent, of another architecture or not finite, or the hub is unreachable.
    """
    with silence_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new: set[str] = set()
        if from_encoder_decoder:
            model, base_id, new = _join(from_encoder_decoder, revision)
        else:
            model, base_id = _load_whole(checkpoint, revision)
        processor = processor or load_processor(checkpoint, revision, from_encoder_decoder)
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = processor.eos_id, processor.pad_id
        config.decoder_start_token_id = processor.start_id
    return PretrainedCaptioner(model.eval(), processor, base_id, frozenset(new))


def load_image_processor(base: str, image_size: int | None = None) -> Any:
    """Load the image processor of a base: hub id (with `@revision`), folder, or `encoder + decoder`."""
    encoder = base if Path(base).is_dir() else base.split(" + ")[0]
    source, revision = (encoder, "") if Path(encoder).is_dir() else encoder.partition("@")[::2]
    return with_image_size(load_pretrained("image processor", AutoImageProcessor, source, revision or None), image_size)


@torch.no_grad()
def resize_positions(encoder: Any, side: int) -> None:
    """Interpolate a ViT's position embeddings, in place, for images of side x side pixels; UserError without any."""
    embeddings: Any = getattr(encoder, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)  # (1, special tokens + P, D)
    if table is None or not hasattr(embeddings, "interpolate_pos_encoding"):
        expected = "expected null: only position embeddings of ViT and the like can be interpolated"
        raise UserError(f"model.image_size={side} with {type(encoder).__name__}; {expected}; set model.image_size=null")
    patches, count = embeddings.patch_embeddings, (side // encoder.config.patch_size) ** 2
    states = table.new_empty(1, table.shape[1] - patches.num_patches + count, table.shape[2])
    embeddings.position_embeddings = nn.Parameter(embeddings.interpolate_pos_encoding(states, side, side).clone())
    embeddings.image_size = patches.image_size = (side, side)  # where one encoder or another checks its input
    patches.num_patches, encoder.config.image_size = count, side


def is_pooler(name: str) -> bool:
    """Whether a weight belongs to an encoder's pooler, which no captioner uses."""
    return "pooler" in name.split(".")


def _load_whole(checkpoint: str | None, revision: str | None) -> tuple[Model, str]:
    if not checkpoint:
        raise UserError("model.checkpoint is empty; expected a hub id or a folder; set model.checkpoint=...")
    source = find_source("model.checkpoint", checkpoint)
    kind = load_pretrained("config", AutoConfig, source, revision).model_type
    if kind != "vision-encoder-decoder":
        raise UserError(
            f"model.checkpoint={source!r} is a {kind!r} model; expected a VisionEncoderDecoderModel (an image encoder "
            f"and a text decoder); set model.checkpoint={KNOWN_ID}"
        )
    model, _ = _load_weights("model", Model, source, "model.checkpoint", revision)
    return model, f"{source}@{revision}" if revision and not Path(source).is_dir() else source


def _join(sources: Mapping[str, str], revision: str | None) -> tuple[Model, str, set[str]]:
    """Return the model, its base id and the names of newly initialized weights."""
    if set(sources) != {"encoder", "decoder"} or not all(sources.values()) or revision:
        raise UserError(
            f"model.from_encoder_decoder={dict(sources)} with model.revision={revision}; expected an encoder, a "
            "decoder and no revision; set model.from_encoder_decoder={encoder: ..., decoder: ...}"
        )
    keys = [f"model.from_encoder_decoder.{name}" for name in ("encoder", "decoder")]
    first, second = find_source(keys[0], sources["encoder"]), find_source(keys[1], sources["decoder"])
    encoder, _ = _load_weights("encoder", AutoModel, first, keys[0])
    config = load_pretrained("config", AutoConfig, second, None, keys[1])
    config.is_decoder = config.add_cross_attention = True
    decoder, new = _load_weights("decoder", AutoModelForCausalLM, second, keys[1], config=config)
    if not new:
        raise UserError(
            f"{keys[1]}={second!r} takes no new cross-attention; expected a text decoder such as gpt2 or "
            "bert-base-uncased; choose another"
        )
    model = Model(encoder=encoder, decoder=decoder)
    projection = {name for name, _ in model.named_parameters() if name.startswith("enc_to_dec_proj.")}
    return model, f"{first} + {second}", {f"decoder.{name}" for name in new} | projection


def _load_weights(
    name: str, kind: Any, source: str, key: str, revision: str | None = None, **settings: Any
) -> tuple[Any, list[str]]:
    """Load a model in fp32; also return the names of weights that a decoder's file lacks."""
    settings |= {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = load_pretrained(name, kind, source, revision, key, **settings)
    found = f"{key}={source!r}"
    missing = sorted(weight for weight in report["missing_keys"] if not is_pooler(weight))
    wrong = sorted(entry[0] for entry in report["mismatched_keys"])
    wrong += missing if name != "decoder" else []
    if wrong:
        raise UserError(
            f"{found} lacks {len(wrong)} weights of its config ({wrong[0]}, ...) or has them in another shape; "
            "expected a whole checkpoint; fetch it again or choose another"
        )
    check_finite(model.named_parameters(), found)
    return model, missing
