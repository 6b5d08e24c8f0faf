"""Processor of a checkpoint: tokenizer, special token ids and image transform. No weights are needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    VisionEncoderDecoderConfig,
)

from src.datamodule.images.transform import ImageTransform
from src.utils.errors import UserError
from src.utils.hub import find_source, load_pretrained, silence_transformers


@dataclass(frozen=True)
class Processor:
    """Tokenizer, image transform and special ids of a checkpoint.

    max_positions: positions of the decoder; a caption and its start token fit in them.
    """

    tokenizer: PreTrainedTokenizerBase
    image: ImageTransform
    start_id: int
    eos_id: int
    pad_id: int
    max_positions: int

    def token_limit(self, limit: int | None = None) -> int:
        """Return the most tokens that a caption may have: `limit`, at most the decoder's positions less the start."""
        most = self.max_positions - 1
        return most if limit is None else min(limit, most)

    def encode_caption(self, text: str, limit: int | None = None) -> list[int]:
        """Return the token ids of a caption without special tokens, cut to `token_limit(limit)`."""
        return self.tokenize([text])[0][: self.token_limit(limit)]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of many captions, uncut and without special tokens.

        The text of a special token in a caption (`<|endoftext|>`) is spelled out and never becomes that
        token: a caption cannot end itself.
        """
        if not texts:
            return []
        # A json escape can hold a lone surrogate, which tokenizers refuse.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encoded = self.tokenizer(
            clean,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        return encoded["input_ids"]

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Return the text of the ids before the first EOS; a start token at the beginning is skipped."""
        tokens = [int(token) for token in ids]
        if tokens and tokens[0] == self.start_id:
            tokens = tokens[1:]
        if self.eos_id in tokens:
            tokens = tokens[: tokens.index(self.eos_id)]
        text: Any = self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return " ".join(text.split())


def load_processor(
    checkpoint: str | None = None,
    revision: str | None = None,
    from_encoder_decoder: Mapping[str, str] | None = None,
) -> Processor:
    """Load the processor of a VisionEncoderDecoder checkpoint, or of a pretrained encoder and decoder.

    Args:
        checkpoint: hub id, or folder in `save_pretrained`'s layout.
        revision: branch, tag or commit on the hub; ignored for a folder.
        from_encoder_decoder: `{"encoder": ..., "decoder": ...}`; `checkpoint` is then not read.

    Raises:
        UserError: a file is missing or cannot be loaded, or as `make_processor`.
    """
    names = {"model.checkpoint": checkpoint} if not from_encoder_decoder else {
        f"model.from_encoder_decoder.{part}": from_encoder_decoder.get(part) for part in ("encoder", "decoder")
    }  # fmt: skip
    with silence_transformers():
        for key, name in names.items():
            if not name:
                raise UserError(f"{key} is empty; expected a hub id or a folder; set {key}=...")
        sources = [(find_source(key, str(name)), revision, key) for key, name in names.items()]
        encoder, decoder = sources[0], sources[-1]
        configs = [load_pretrained("config", AutoConfig, *source) for source in sources]
        tokenizer = load_pretrained("tokenizer", AutoTokenizer, *decoder)
        image_processor = load_pretrained("image processor", AutoImageProcessor, *encoder)
        if from_encoder_decoder:
            config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(*configs)
            generation = GenerationConfig.from_model_config(config)
        else:
            config = configs[0]
            generation = _load_generation_config(config, *encoder)
    return make_processor(config, generation, tokenizer, image_processor)


def _load_generation_config(config: Any, source: str, revision: str | None, key: str) -> Any:
    """Load generation_config.json, or derive it from the config where there is none, as `from_pretrained` does."""
    try:
        return load_pretrained("generation config", GenerationConfig, source, revision, key)
    except UserError:
        return GenerationConfig.from_model_config(config)


def make_processor(config: Any, generation: Any, tokenizer: Any, image_processor: Any) -> Processor:
    """Combine tokenizer, image processor and the special ids that the configs or the tokenizer name.

    config, generation: of a VisionEncoderDecoder model; not changed.

    Raises:
        UserError: not such a model; an id is missing, beyond the vocabulary or contradicted; the tokenizer is
            empty or of another vocabulary; or the image size is not the encoder's.
    """
    decoder = getattr(config, "decoder", None)
    if decoder is None:
        raise UserError(
            f"model.checkpoint is a {getattr(config, 'model_type', '')!r} model; expected a VisionEncoderDecoderModel "
            "(an image encoder and a text decoder); set model.checkpoint to one"
        )
    configs = (config, generation, decoder)
    eos = _first_id("eos_token_id", configs, tokenizer.eos_token_id, tokenizer.sep_token_id)
    start = _first_id(
        "decoder_start_token_id", (config, generation), getattr(decoder, "bos_token_id", None),
        tokenizer.bos_token_id, tokenizer.cls_token_id,
    )  # fmt: skip
    pad = _first_id("pad_token_id", configs, tokenizer.pad_token_id, eos)
    _check_tokenizer(tokenizer, eos, max(eos, start, pad), decoder.vocab_size)
    image = ImageTransform.from_processor(image_processor)
    _check_image_size(image, config.encoder)
    positions = getattr(decoder, "max_position_embeddings", None) or 1024
    if getattr(decoder, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        positions -= decoder.pad_token_id + 1  # their positions begin after the padding id
    return Processor(tokenizer, image, start, eos, pad, positions)


def _first_id(name: str, configs: tuple[Any, ...], *others: int | list[int] | None) -> int:
    """Return the first id that the configs have under `name`, else the first of `others`."""
    for candidate in (*(getattr(config, name, None) for config in configs), *others):
        if isinstance(candidate, list) and candidate:
            return candidate[0]
        if isinstance(candidate, int):
            return candidate
    raise UserError(
        f"{name} is in neither the checkpoint's config nor its tokenizer; expected a token id; "
        f"set {name} in the checkpoint's config.json"
    )


def _check_tokenizer(tokenizer: Any, eos: int, largest_id: int, vocabulary: int) -> None:
    if not tokenizer("a caption", add_special_tokens=False)["input_ids"]:
        raise UserError(
            "the tokenizer gives no token for 'a caption'; expected one with a vocabulary; copy tokenizer.json (or "
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
            "expected one token that ends a caption; correct config.json or tokenizer_config.json"
        )


def _check_image_size(image: ImageTransform, encoder: Any) -> None:
    size = getattr(encoder, "image_size", None)
    expected = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if size is not None and (image.height, image.width) != expected:
        raise UserError(
            f"the image processor gives {image.height} x {image.width} pixels and the encoder takes {expected[0]} x "
            f"{expected[1]}; expected one size; correct the checkpoint's preprocessor_config.json"
        )
