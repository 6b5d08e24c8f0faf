"""A captioner as it comes from the hub or a folder: weights, tokenizer and image processor together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    VisionEncoderDecoderModel,
)

from src.datamodule.processor import Processor
from src.models.hub import KNOWN_ID, find_source, load_part, quiet_transformers
from src.models.special_tokens import make_preprocessing
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
# Buffers of old files: GPT-2's causal masks and positions.
HARMLESS = ("attn.bias", "attn.masked_bias", "crossattention.bias", "crossattention.masked_bias",
            "position_ids")  # fmt: skip


@dataclass(frozen=True)
class PretrainedCaptioner:
    """What a checkpoint gives.

    model: fp32, in eval mode. base_id: hub id (with `@revision`) or folder.
    fresh: names of weights that the checkpoint did not hold, made at random here; they must train.
    """

    model: VisionEncoderDecoderModel
    preprocessing: Processor
    base_id: str
    fresh: frozenset[str] = frozenset()


def load_captioner(
    checkpoint: str | None = None,
    revision: str | None = None,
    from_encoder_decoder: Mapping[str, str] | None = None,
    seed: int = 0,
) -> PretrainedCaptioner:
    """Load a VisionEncoderDecoder checkpoint, or join a pretrained encoder and decoder with new cross-attention.

    Args:
        checkpoint: a hub id or a folder in `save_pretrained`'s layout, of any age.
        revision: branch, tag or commit on the hub; a folder has none.
        from_encoder_decoder: `{"encoder": ..., "decoder": ...}`, each a hub id or a folder; then `checkpoint`
            is not read.
        seed: of the weights that are made at random here.

    Raises:
        UserError: nothing there, the hub out of reach, another architecture, a part missing or contradictory.
    """
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if from_encoder_decoder:
            return _join(from_encoder_decoder, revision)
        if not checkpoint:
            raise UserError(
                "model.checkpoint is empty; expected a hub id or a folder; set model.checkpoint=..."
            )
        source = find_source("model.checkpoint", checkpoint)
        model = _load_model(source, revision)
        tokenizer = load_part("tokenizer", AutoTokenizer, source, revision)
        processor = load_part("image processor", AutoImageProcessor, source, revision)
    base_id = f"{source}@{revision}" if revision and not Path(source).is_dir() else source
    return PretrainedCaptioner(model.eval(), make_preprocessing(model, tokenizer, processor), base_id)


def _load_model(source: str, revision: str | None) -> VisionEncoderDecoderModel:
    """The model, fp32.

    Raises:
        UserError: another architecture, or weights missing or of other shapes.
    """
    config = load_part("config", AutoConfig, source, revision)
    if config.model_type != "vision-encoder-decoder":
        raise UserError(
            f"model.checkpoint={source!r} is a {config.model_type!r} model; expected a VisionEncoderDecoderModel "
            f"(an image encoder and a text decoder); set model.checkpoint={KNOWN_ID}"
        )
    model, report = _load_weights("model", VisionEncoderDecoderModel, source, revision, "model.checkpoint")
    if report:
        raise UserError(
            f"model.checkpoint={source!r} lacks {len(report)} weights that its config asks for ({report[0]}, ...); "
            "expected a whole checkpoint; fetch it again"
        )
    return model


def _load_weights(
    part: str, kind: Any, source: str, revision: str | None, key: str, **settings: Any
) -> tuple[Any, list[str]]:
    """A model and the names of its weights that the file lacks, an unused pooler's left out.

    Raises:
        UserError: it cannot be loaded, or weights have other shapes.
    """
    model, report = load_part(
        part, kind, source, revision, key, dtype=torch.float32, output_loading_info=True,
        ignore_mismatched_sizes=True, **settings,
    )  # fmt: skip
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise UserError(
            f"{key}={source!r}: {name} has the shape {tuple(found)} and its config asks for {tuple(expected)}; "
            "expected weights and config of one model; fetch both again"
        )
    spare = sorted(name for name in report["unexpected_keys"] if not name.endswith(HARMLESS))
    if spare:
        log.info("%s of %s: %d weights have no place in it (%s, ...)", part, source, len(spare), spare[0])
    return model, sorted(name for name in report["missing_keys"] if not is_pooler(name))


def is_pooler(name: str) -> bool:
    """Whether a weight belongs to an encoder's pooler, which no captioner uses."""
    return "pooler" in name.split(".")


def _join(halves: Mapping[str, str], revision: str | None) -> PretrainedCaptioner:
    """A pretrained encoder and decoder with cross-attention (and projection) at random.

    Raises:
        UserError: a half is not given or cannot be loaded, or the two cannot be joined.
    """
    if set(halves) != {"encoder", "decoder"} or not all(halves.values()) or revision:
        raise UserError(
            f"model.from_encoder_decoder={dict(halves)} with model.revision={revision}; expected an encoder, a decoder "
            "and no revision; set model.from_encoder_decoder={encoder: ..., decoder: ...}"
        )
    keys = {half: f"model.from_encoder_decoder.{half}" for half in halves}
    sources = {half: find_source(keys[half], halves[half]) for half in halves}
    encoder, lacking = _load_weights("encoder", AutoModel, sources["encoder"], None, keys["encoder"])
    if lacking:
        raise UserError(
            f"{keys['encoder']}={sources['encoder']!r} lacks {len(lacking)} weights ({lacking[0]}, ...); expected a "
            "whole image encoder; choose another"
        )
    config = load_part("config", AutoConfig, sources["decoder"], None, keys["decoder"])
    config.is_decoder = config.add_cross_attention = True
    decoder, fresh = _load_weights(
        "decoder", AutoModelForCausalLM, sources["decoder"], None, keys["decoder"], config=config
    )
    processor = load_part("image processor", AutoImageProcessor, sources["encoder"], key=keys["encoder"])
    tokenizer = load_part("tokenizer", AutoTokenizer, sources["decoder"], key=keys["decoder"])
    if not fresh:
        raise UserError(
            f"{keys['decoder']}={sources['decoder']!r} takes no new cross-attention; expected a text decoder such as "
            "gpt2 or bert-base-uncased; choose another"
        )
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    names = {f"decoder.{name}" for name in fresh}
    names |= {name for name, _ in model.named_parameters() if name.startswith("enc_to_dec_proj.")}
    preprocessing = make_preprocessing(model, tokenizer, processor)
    base_id = f"{sources['encoder']} + {sources['decoder']}"
    return PretrainedCaptioner(model.eval(), preprocessing, base_id, frozenset(names))
