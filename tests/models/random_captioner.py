"""Captioners with random weights and packed captions for the tests beside this file."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import BartConfig, BertConfig, GPT2Config, PreTrainedConfig, RobertaConfig, ViTConfig
from transformers import VisionEncoderDecoderConfig as Config
from transformers import VisionEncoderDecoderModel as Model

from src.datamodule.collate import CaptionBatch, pack_captions

Captions = Sequence[Sequence[Sequence[int]]]  # token ids of each image's captions
WIDTH, PATCHES, VOCABULARY, END = 32, 5, 60, 59


def decoder_config(kind: str, width: int = WIDTH, **settings: object) -> PreTrainedConfig:
    """GPT-2, BERT, RoBERTa or BART of three blocks, without dropout by default."""
    if kind == "gpt2":
        plain = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "initializer_range": 0.2}
        ids = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
        shape = {"n_embd": width, "n_layer": 3, "n_head": 2, "n_positions": 64, "vocab_size": VOCABULARY}
        return GPT2Config(**(shape | ids | plain | settings))
    if kind == "bart":
        shape = {"d_model": width, "decoder_layers": 3, "decoder_attention_heads": 2, "decoder_ffn_dim": 48}
        return BartConfig(vocab_size=VOCABULARY, dropout=0.0, max_position_embeddings=64, **shape, **settings)
    config = {"bert": BertConfig, "roberta": RobertaConfig}[kind]
    shape = {"hidden_size": width, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "vocab_size": VOCABULARY}
    return config(max_position_embeddings=64, pad_token_id=1, **shape, **plain, **settings)


def captioner(kind: str = "gpt2", seed: int = 0, **settings: object) -> Model:
    """A tiny ViT and a decoder of the given kind, in eval mode, nothing frozen."""
    torch.manual_seed(seed)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    encoder = ViTConfig(hidden_size=WIDTH, image_size=32, patch_size=16, **shape)
    decoder = decoder_config(kind, **settings)
    config = Config.from_encoder_decoder_configs(encoder, decoder)
    return Model(config).eval()


def freeze_all_but(model: Model, num_blocks: int) -> list[nn.Parameter]:
    """Train the decoder's last blocks alone; returns their weights."""
    model.requires_grad_(False).eval()
    for block in model.decoder.transformer.h[len(model.decoder.transformer.h) - num_blocks :]:
        block.requires_grad_(True).train()
    return [weight for weight in model.parameters() if weight.requires_grad]


def random_captions(images: int = 3, captions: int = 4, seed: int = 0) -> list[list[list[int]]]:
    """Captions of few different tokens, so that prefixes repeat; one of them is empty."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 8, (images, captions), generator=generator)
    lengths[0, 0] = 0
    return [[torch.randint(2, 5, (n,), generator=generator).tolist() for n in row] for row in lengths]


def packed(rows: Captions, **settings: int) -> CaptionBatch:
    """The batch of given captions."""
    names = [str(number) for number in range(len(rows))]
    return CaptionBatch(
        image_ids=names, references=[[] for _ in rows], **pack_captions(rows, END, END, END, **settings)
    )


def random_states(images: int = 3, seed: int = 0, width: int = WIDTH) -> Tensor:
    """Encoder states (B,P,D)."""
    return torch.randn(images, PATCHES, width, generator=torch.Generator().manual_seed(seed))


def separate_nll(model: Model, states: Tensor, rows: Captions, start: int = END, end: int = END) -> Tensor:
    """The summed cross-entropy of each caption alone through transformers' forward."""
    nll = []
    for state, captions in zip(states, rows, strict=True):
        for caption in captions:
            ids, labels = torch.tensor([[start, *caption]]), torch.tensor([*caption, end])
            logits = model(encoder_outputs=(state[None],), decoder_input_ids=ids).logits[0]
            nll.append(nn.functional.cross_entropy(logits, labels, reduction="sum"))
    return torch.stack(nll).sum()


def unpack(batch: CaptionBatch) -> list[list[list[int]]]:
    """The token ids of each caption of each image, without start and EOS: what `pack_captions` was given."""
    captions: list[list[list[int]]] = [[] for _ in batch.image_ids]
    images = range(len(batch.input_ids)) if batch.row_image is None else batch.row_image.tolist()
    grids = batch.input_ids.tolist(), batch.position_ids.tolist(), batch.caption_index.tolist()
    for image, *row in zip(images, *grids, strict=True):
        for token, position, index in zip(*row, strict=True):
            if index >= 0 and position == 0:
                captions[image].append([])
            elif index >= 0:
                captions[image][-1].append(token)
    return captions
