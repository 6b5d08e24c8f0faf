"""Start, end and padding ids of a captioner, from wherever its checkpoint says them, held against each other."""

from typing import Any

from transformers import VisionEncoderDecoderModel

from src.datamodule.processor import ImageTransform, Processor
from src.utils.errors import UserError


def make_preprocessing(model: VisionEncoderDecoderModel, tokenizer: Any, processor: Any) -> Processor:
    """Tokenizer, picture transform and special ids of a model, also written into its generation config.

    Raises:
        UserError: an id is missing, beyond the vocabulary or said in two ways, the tokenizer is empty or of
            another vocabulary, or the picture size is not the encoder's.
    """
    config: Any = model.config
    decoder: Any = config.decoder
    generation: Any = model.generation_config
    places = (config, generation, decoder)
    eos = _first("eos_token_id", places, tokenizer.eos_token_id, tokenizer.sep_token_id)
    start = _first(
        "decoder_start_token_id", (config, generation), getattr(decoder, "bos_token_id", None),
        tokenizer.bos_token_id, tokenizer.cls_token_id,
    )  # fmt: skip
    pad = _first("pad_token_id", places, tokenizer.pad_token_id, eos)
    _check_tokens(tokenizer, eos, max(eos, start, pad), decoder.vocab_size)
    for name, value in (("eos_token_id", eos), ("decoder_start_token_id", start), ("pad_token_id", pad)):
        setattr(config, name, value)
        setattr(generation, name, value)
    image = ImageTransform.from_processor(processor)
    _check_size(image, model.encoder.config)
    positions = getattr(decoder, "max_position_embeddings", None) or 1024
    if getattr(decoder, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        positions -= decoder.pad_token_id + 1  # their positions begin after the padding id
    return Processor(tokenizer, image, start, eos, pad, positions)


def _first(name: str, places: tuple[Any, ...], *others: int | list[int] | None) -> int:
    """The first id that is said: by the configs under `name`, then by `others`."""
    for candidate in (*(getattr(place, name, None) for place in places), *others):
        if isinstance(candidate, list) and candidate:
            return candidate[0]
        if isinstance(candidate, int):
            return candidate
    raise UserError(
        f"{name} is in neither the checkpoint's config nor its tokenizer; expected a token id; "
        f"set {name} in the checkpoint's config.json"
    )


def _check_tokens(tokenizer: Any, eos: int, largest_id: int, vocabulary: int) -> None:
    if not tokenizer("a caption", add_special_tokens=False)["input_ids"]:
        raise UserError(
            "the tokenizer makes nothing of 'a caption'; expected one with a vocabulary; copy tokenizer.json (or "
            "vocab.json and merges.txt, or vocab.txt) into the checkpoint's folder"
        )
    largest = max(largest_id, len(tokenizer) - 1)
    if largest >= vocabulary:
        raise UserError(
            f"the tokenizer knows token {largest} and the decoder has {vocabulary}; expected a tokenizer "
            "that belongs to the decoder; take both from one checkpoint"
        )
    ends = [tokenizer.eos_token_id, tokenizer.sep_token_id]
    if any(end is not None for end in ends) and eos not in ends:
        raise UserError(
            f"eos_token_id={eos} in the checkpoint's config and {tokenizer.eos_token!r} ({ends[0]}) in its tokenizer; "
            "expected one token that ends a caption; mend config.json or tokenizer_config.json"
        )


def _check_size(image: ImageTransform, encoder: Any) -> None:
    size = getattr(encoder, "image_size", None)
    expected = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if size is not None and (image.height, image.width) != expected:
        raise UserError(
            f"the image processor gives {image.height} x {image.width} pixels and the encoder takes {expected[0]} x "
            f"{expected[1]}; expected one size; mend the checkpoint's preprocessor_config.json"
        )
