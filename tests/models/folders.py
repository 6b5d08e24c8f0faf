"""Folders of tiny captioners, encoders and decoders of many kinds, weights at random."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BeitConfig,
    BeitImageProcessor,
    DeiTConfig,
    DeiTImageProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    SwinConfig,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from tests.models.random_captioner import decoder_config

SIZE = 32  # pixels


def encoder_config(kind: str, width: int = 32, **settings: Any) -> PreTrainedConfig:
    """ViT, DeiT, BEiT or Swin of three blocks; no dropout, and what starts at zero is random too."""
    if kind == "swin":  # stages of one and two blocks, the second with shifted windows, width 32 at the end
        config = {"embed_dim": width // 2, "depths": [1, 2], "num_heads": [1, 2], "window_size": 2}
        config |= {"image_size": SIZE, "patch_size": 4, "drop_path_rate": 0.0}
        return SwinConfig(**(config | settings))
    shape = {"hidden_size": width, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    shape |= {"image_size": SIZE, "patch_size": 8}
    if kind.startswith("beit"):
        bias = f"use_{'shared_' if kind == 'beit_shared' else ''}relative_position_bias"
        plain = {bias: True, "drop_path_rate": 0.0, "use_mean_pooling": False}
        return BeitConfig(**(shape | plain | settings))
    return {"vit": ViTConfig, "deit": DeiTConfig}[kind](**(shape | settings))


def processor(kind: str, size: int = SIZE) -> Any:
    """The image processor that goes with an encoder."""
    if kind == "deit":
        return DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size={"height": size, "width": size})
    made = BeitImageProcessor if kind.startswith("beit") else ViTImageProcessor
    settings = {"do_center_crop": False} if kind.startswith("beit") else {}
    return made(size={"height": size, "width": size}, **settings)


def tokenizer(kind: str, text: str = "a red blue square circle above below left right") -> Any:
    """Whole words, with the special tokens of GPT-2, BERT or RoBERTa."""
    special = {
        "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
        "bert": {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        "roberta": {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
                    "cls_token": "<s>", "sep_token": "</s>"},
    }[kind]  # fmt: skip
    names = list(dict.fromkeys([*special.values(), *text.split()]))
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, special["unk_token"]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def ids(kind: str) -> dict[str, int]:
    """The special token ids in a captioner's config, those of `tokenizer(kind)`."""
    start, pad, end = {"gpt2": (0, 0, 0), "bert": (2, 1, 3), "roberta": (0, 1, 2)}[kind]
    return {"decoder_start_token_id": start, "pad_token_id": pad, "eos_token_id": end}


def randomize_zeros(model: torch.nn.Module) -> None:
    """Give position biases and the like, which begin at zero, values that matter."""
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any() or (weight == 1).all():
                weight += 0.1 * torch.randn(weight.shape)


def save_captioner(folder: Path, encoder: str, decoder: str, width: int = 32) -> Path:
    """A whole captioner; width is the decoder's, the encoder has 32."""
    torch.manual_seed(0)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder_config(encoder), decoder_config(decoder, width)
    )
    for name, value in ids(decoder).items():
        setattr(config, name, value)
    model = VisionEncoderDecoderModel(config)
    randomize_zeros(model)
    model.save_pretrained(folder)
    save_inputs(folder, encoder, decoder)
    return folder


def save_inputs(folder: Path, encoder: str | None, decoder: str | None) -> None:
    """Image processor and tokenizer."""
    if encoder:
        processor(encoder).save_pretrained(folder)
    if decoder:
        tokenizer(decoder).save_pretrained(folder)


def save_encoder_and_decoder(folder: Path, encoder: str, decoder: str, width: int = 32) -> dict[str, str]:
    """A pretrained encoder and a pretrained decoder, each in a folder of its own."""
    torch.manual_seed(0)
    special = {name: value for name, value in ids(decoder).items() if name != "decoder_start_token_id"}
    settings = decoder_config(decoder, width, **(special if decoder == "gpt2" else {}))
    AutoModel.from_config(encoder_config(encoder)).save_pretrained(folder / "encoder")
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder / "decoder")
    save_inputs(folder / "encoder", encoder, None)
    save_inputs(folder / "decoder", None, decoder)
    return {"encoder": str(folder / "encoder"), "decoder": str(folder / "decoder")}
