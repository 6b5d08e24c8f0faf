"""Processor of a checkpoint: tokenizer, special token ids and image transform. No weights are needed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
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

OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")  # their positions begin after the padding id


@dataclass(frozen=True)
class Processor:
    """Tokenizer, image transform and special ids of a checkpoint."""

    tokenizer: PreTrainedTokenizerBase
    image: ImageTransform
    start_id: int
    eos_id: int
    pad_id: int
    max_positions: int  # of the decoder; a caption and its start token fit in them

    def token_limit(self, limit: int | None = None) -> int:
        """Return the most tokens that a caption may have: `limit`, at most the decoder's positions less the start."""
        return min(limit or self.max_positions, self.max_positions - 1)

    def encode_caption(self, text: str) -> list[int]:
        """Return the token ids of a caption without special tokens, cut to the decoder's positions."""
        return self.tokenize([text])[0][: self.token_limit()]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of many captions, uncut and without special tokens.

        The text of a special token in a caption (`<|endoftext|>`) never becomes that token.
        """
        # A json escape can hold a lone surrogate, which tokenizers refuse.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        settings = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return self.tokenizer(clean, return_attention_mask=False, **settings)["input_ids"] if clean else []

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Return the text of the ids before the first EOS; a start token at the beginning is skipped."""
        tokens = [int(token) for token in ids]
        if tokens and tokens[0] == self.start_id:
            tokens = tokens[1:]
        if self.eos_id in tokens:
            tokens = tokens[: tokens.index(self.eos_id)]
        text: Any = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return " ".join(text.split())


def load_processor(
    checkpoint: str | None = None,
    revision: str | None = None,
    from_encoder_decoder: Mapping[str, str] | None = None,
    image_size: int | None = None,
) -> Processor:
    """Load the processor of a VisionEncoderDecoder checkpoint (hub id or folder), or of `{"encoder", "decoder"}`.

    image_size: pixels of a side, a multiple of the patch size; None: the checkpoint's.
    UserError for another size, where a file is missing or cannot be loaded, or as `make_processor`.
    """
    pair = from_encoder_decoder
    names = {"model.checkpoint": checkpoint} if not pair else {
        f"model.from_encoder_decoder.{kind}": pair.get(kind) for kind in ("encoder", "decoder")
    }  # fmt: skip
    with silence_transformers():
        for key, name in names.items():
            if not name:
                raise UserError(f"{key} is empty; expected a hub id or a folder; set {key}=...")
        sources = [(find_source(key, str(name)), revision, key) for key, name in names.items()]
        configs = [load_pretrained("config", AutoConfig, *source) for source in sources]
        tokenizer = load_pretrained("tokenizer", AutoTokenizer, *sources[-1])
        image_processor = load_pretrained("image processor", AutoImageProcessor, *sources[0])
        config, generation = configs[0], None
        if pair:
            config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(*configs)
        else:
            with suppress(UserError):
                generation = load_pretrained("generation config", GenerationConfig, *sources[0])
    generation = generation or GenerationConfig.from_model_config(config)  # as `from_pretrained` does
    if image_size:
        patch = getattr(config.encoder, "patch_size", None) or 1
        if image_size % patch:
            raise UserError(
                f"model.image_size={image_size}; expected a multiple of {patch}, the side of the encoder's patches; "
                f"set model.image_size={max(1, round(image_size / patch)) * patch}"
            )
        image_processor = with_image_size(image_processor, image_size)
        config.encoder.image_size = image_size
    return make_processor(config, generation, tokenizer, image_processor)


def with_image_size(image_processor: Any, side: int | None) -> Any:
    """Return a transformers image processor that gives side x side pixels, of the same part of an image."""
    settings = image_processor.to_dict()
    if side and settings.get("do_center_crop"):
        scale = side / settings["crop_size"]["height"]
        settings["size"] = {name: round(value * scale) for name, value in settings["size"].items() if value}
        settings["crop_size"] = {"height": side, "width": side}
    elif side:
        settings["size"] = {"height": side, "width": side}
    return type(image_processor).from_dict(settings) if side else image_processor


def make_processor(config: Any, generation: Any, tokenizer: Any, image_processor: Any) -> Processor:
    """Combine tokenizer, image processor and the special ids that the configs (not changed) or the tokenizer name.

    UserError for another model than VisionEncoderDecoder, and where ids or sizes are missing or contradictory.
    """
    decoder = getattr(config, "decoder", None)
    if decoder is None:
        raise UserError(
            f"model.checkpoint is a {getattr(config, 'model_type', '')!r} model; expected a VisionEncoderDecoderModel "
            "(an image encoder and a text decoder); set model.checkpoint to one"
        )
    configs = (config, generation, decoder)
    eos = _first_id("eos_token_id", configs, tokenizer.eos_token_id, tokenizer.sep_token_id)
    start = _first_id("decoder_start_token_id", configs[:2], getattr(decoder, "bos_token_id", None),
                      tokenizer.bos_token_id, tokenizer.cls_token_id)  # fmt: skip
    pad = _first_id("pad_token_id", configs, tokenizer.pad_token_id, eos)
    image = ImageTransform.from_processor(image_processor)
    size = getattr(config.encoder, "image_size", None) or (image.height, image.width)
    expected = tuple(size) if isinstance(size, list | tuple) else (size, size)
    ends = [end for end in (tokenizer.eos_token_id, tokenizer.sep_token_id) if end is not None]
    largest = max(eos, start, pad, len(tokenizer) - 1)
    problems = []
    if not tokenizer("a caption", add_special_tokens=False)["input_ids"]:
        problems.append("the tokenizer gives no token for 'a caption'")
    if largest >= decoder.vocab_size:
        problems.append(f"the tokenizer knows token {largest} and the decoder has {decoder.vocab_size}")
    if ends and eos not in ends:
        name = tokenizer.eos_token
        problems.append(f"eos_token_id={eos} in the checkpoint's config and {name!r} ({ends[0]}) in its tokenizer")
    if (image.height, image.width) != expected:
        pixels = "{} x {} pixels and the encoder takes {} x {}".format(image.height, image.width, *expected)
        problems.append(f"the image processor gives {pixels}")
    if problems:
        raise UserError(
            f"{'; '.join(problems)}; expected a tokenizer and image processor that belong to the model; take all files "
            "from one checkpoint, or correct its .json files"
        )
    positions = getattr(decoder, "max_position_embeddings", None) or 1024
    if getattr(decoder, "model_type", "") in OFFSET_POSITIONS:
        positions -= decoder.pad_token_id + 1
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
