"""A captioner as it comes from the hub or a folder: weights, tokenizer and image processor together."""

import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

from src.datamodule.preprocessing import ImageTransform, Preprocessing
from src.utils.errors import UserError

LOADING_FAULTS = (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError)


@dataclass(frozen=True)
class PretrainedCaptioner:
    """What a checkpoint gives.

    model: fp32, in eval mode. base_id: hub id (with `@revision`) or folder.
    fresh: names of weights that the checkpoint did not hold, made at random here; they must train.
    """

    model: VisionEncoderDecoderModel
    preprocessing: Preprocessing
    base_id: str
    fresh: frozenset[str] = frozenset()


def load_captioner(
    checkpoint: str | None = None,
    revision: str | None = None,
    from_encoder_decoder: Mapping[str, str] | None = None,
) -> PretrainedCaptioner:
    """Load a VisionEncoderDecoder checkpoint, or join a pretrained encoder and decoder with new cross-attention.

    Args:
        checkpoint: a hub id or a folder in `save_pretrained`'s layout, of any age.
        revision: branch, tag or commit on the hub.
        from_encoder_decoder: `{"encoder": ..., "decoder": ...}`, each a hub id or a folder; then `checkpoint`
            is not read.

    Raises:
        UserError: nothing there, the hub out of reach, another architecture, a part missing or contradictory.
    """
    with quiet_transformers():
        if from_encoder_decoder:
            return _join(from_encoder_decoder["encoder"], from_encoder_decoder["decoder"])
        if not checkpoint:
            raise UserError(
                "model.checkpoint is empty; expected a hub id or a folder; set model.checkpoint=..."
            )
        source = find_source("model.checkpoint", checkpoint)
        model, fresh = _load_model(source, revision)
        tokenizer = _load("tokenizer", AutoTokenizer, source, revision)
        processor = _load("image processor", AutoImageProcessor, source, revision)
    base_id = f"{source}@{revision}" if revision else source
    return PretrainedCaptioner(model, make_preprocessing(model, tokenizer, processor), base_id, fresh)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep load reports and progress bars off the screen; what matters in them is checked here."""
    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def find_source(key: str, checkpoint: str) -> str:
    """The folder's absolute path, or the hub id as it is.

    Raises:
        UserError: it looks like a path and nothing is there.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1 or path.parent.is_dir():
        near = difflib.get_close_matches(path.name, _names(path.parent), n=1)
        hint = f" (did you mean {path.parent / near[0]}?)" if near else ""
        raise UserError(
            f"{key}={checkpoint!r} does not exist{hint}; expected a folder with config.json and weights or a "
            f"hub id such as nlpconnect/vit-gpt2-image-captioning; set {key}=..."
        )
    return checkpoint


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _load(part: str, kind: Any, source: str, revision: str | None, **settings: Any) -> Any:
    """`kind.from_pretrained`, its many errors told in one line.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        return kind.from_pretrained(source, revision=revision, trust_remote_code=False, **settings)
    except LOADING_FAULTS as error:
        raise UserError(_what_failed(part, source, error)) from error


def _what_failed(part: str, source: str, error: Exception) -> str:
    if Path(source).is_dir():
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return (
            f"model.checkpoint={source!r}: its {part} cannot be loaded ({reason}); expected a folder in "
            "save_pretrained's layout; write it again with its tokenizer and image processor"
        )
    return (
        f"model.checkpoint={source!r}: its {part} is neither in the local cache nor to be had from the hub "
        f"({type(error).__name__}); expected a connection or a folder; fetch huggingface.co/{source} on a "
        "machine that has one, copy the folder here and set model.checkpoint=<folder>"
    )


def _load_model(source: str, revision: str | None) -> tuple[VisionEncoderDecoderModel, frozenset[str]]:
    """The model, and which of its weights were not in the file.

    Raises:
        UserError: another architecture, or weights missing, too many or of other shapes.
    """
    config = _load("config", AutoConfig, source, revision)
    if config.model_type != "vision-encoder-decoder":
        raise UserError(
            f"model.checkpoint={source!r} is a {config.model_type!r} model; expected a VisionEncoderDecoderModel "
            "(an image encoder and a text decoder); set model.checkpoint=nlpconnect/vit-gpt2-image-captioning"
        )
    model, report = _load(
        "model", VisionEncoderDecoderModel, source, revision, output_loading_info=True, dtype=torch.float32
    )
    missing = sorted(name for name in report["missing_keys"] if ".pooler." not in name)
    if missing or report["mismatched_keys"]:
        found = missing or sorted(str(key) for key in report["mismatched_keys"])
        raise UserError(
            f"model.checkpoint={source!r} lacks {len(found)} weights that its config asks for ({found[0]}, ...); "
            "expected a whole checkpoint; fetch it again"
        )
    return model.eval(), frozenset()


def _join(encoder: str, decoder: str) -> PretrainedCaptioner:
    """A pretrained encoder and decoder with cross-attention (and projection) at random.

    Raises:
        UserError: a part cannot be loaded, or the two cannot be joined.
    """
    encoder = find_source("model.from_encoder_decoder.encoder", encoder)
    decoder = find_source("model.from_encoder_decoder.decoder", decoder)
    try:
        model: Any = VisionEncoderDecoderModel.from_encoder_decoder_pretrained(encoder, decoder)
    except LOADING_FAULTS as error:
        raise UserError(_what_failed("encoder or decoder", f"{encoder} + {decoder}", error)) from error
    tokenizer = _load("tokenizer", AutoTokenizer, decoder, None)
    processor = _load("image processor", AutoImageProcessor, encoder, None)
    fresh = frozenset(
        name
        for name, _ in model.named_parameters()
        if "crossattention" in name or "ln_cross_attn" in name or name.startswith("enc_to_dec_proj")
    )
    preprocessing = make_preprocessing(model, tokenizer, processor)
    return PretrainedCaptioner(model.float().eval(), preprocessing, f"{encoder} + {decoder}", fresh)


def make_preprocessing(model: VisionEncoderDecoderModel, tokenizer: Any, processor: Any) -> Preprocessing:
    """Tokenizer, picture transform and special ids of a model, also written into its generation config.

    Raises:
        UserError: an id is missing or beyond the vocabulary, or the picture size is not the encoder's.
    """
    config: Any = model.config
    decoder: Any = config.decoder
    eos = _first("eos_token_id", config.eos_token_id, decoder.eos_token_id, tokenizer.eos_token_id,
                 tokenizer.sep_token_id)  # fmt: skip
    start = _first("decoder_start_token_id", config.decoder_start_token_id,
                   model.generation_config.decoder_start_token_id, decoder.bos_token_id,
                   tokenizer.bos_token_id, tokenizer.cls_token_id)  # fmt: skip
    pad = _first("pad_token_id", config.pad_token_id, decoder.pad_token_id, tokenizer.pad_token_id, eos)
    largest = max(eos, start, pad, len(tokenizer) - 1)
    if largest >= decoder.vocab_size:
        raise UserError(
            f"the tokenizer knows token {largest} and the decoder has {decoder.vocab_size}; expected a tokenizer "
            "that belongs to the decoder; take both from one checkpoint"
        )
    for name, value in (("eos_token_id", eos), ("decoder_start_token_id", start), ("pad_token_id", pad)):
        setattr(config, name, value)
        setattr(model.generation_config, name, value)
    positions = getattr(decoder, "max_position_embeddings", None) or 1024
    if getattr(decoder, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        positions -= decoder.pad_token_id + 1  # their positions begin after the padding id
    return Preprocessing(tokenizer, ImageTransform.from_processor(processor), start, eos, pad, positions)


def _first(name: str, *candidates: int | list[int] | None) -> int:
    for candidate in candidates:
        if isinstance(candidate, list) and candidate:
            return candidate[0]
        if isinstance(candidate, int):
            return candidate
    raise UserError(
        f"{name} is in neither the checkpoint's config nor its tokenizer; expected a token id; "
        f"set {name} in the checkpoint's config.json"
    )
