"""Choose which weights train: the last blocks of encoder and decoder, found by structure, not by a list of names."""

from collections.abc import Collection

from torch import nn
from transformers import VisionEncoderDecoderModel

from src.utils.errors import UserError

TRAIN_MODES = ("last_blocks", "cross_attention", "lora", "full")
CROSS_ATTENTION = ("crossattention", "ln_cross_attn", "encoder_attn", "encoder_attn_layer_norm")


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks of an encoder or decoder, first to last.

    They are the items of the innermost lists of like modules (a Swin stage is itself a list of blocks), of the
    class that holds the most weights.

    Raises:
        UserError: the module has no list of blocks.
    """
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) and _is_innermost(m)]
    sizes: dict[type, int] = {}
    for block in (block for found in lists for block in found):
        sizes[type(block)] = sizes.get(type(block), 0) + sum(p.numel() for p in block.parameters())
    if not sizes:
        raise UserError(
            f"{type(model).__name__} has no list of transformer blocks; expected an encoder or decoder made of "
            "blocks; choose another model.checkpoint"
        )
    kind = max(sizes, key=lambda block: sizes[block])
    return [block for found in lists for block in found if type(block) is kind]


def _is_innermost(found: nn.ModuleList) -> bool:
    return not any(isinstance(m, nn.ModuleList) and m is not found and len(m) for m in found.modules())


def choose_trainable(
    model: VisionEncoderDecoderModel, train: str, num_layers_to_train: int, new_weights: Collection[str] = ()
) -> list[nn.Module]:
    """Freeze the model but for what `train` names, and return the modules that train, whole.

    last_blocks: the last `num_layers_to_train` blocks of encoder and decoder. cross_attention: every cross-attention
    with its layer norm. lora: nothing yet, `add_lora` adds what trains. full: all but the unused pooler.
    `enc_to_dec_proj`, newly initialized weights and a cross-attention that has them always train.

    Raises:
        UserError: an unknown mode, more blocks than there are, nothing that trains, or a decoder whose
            cross-attention has another name.
    """
    model.requires_grad_(False)
    attentions = [m for n, m in model.decoder.named_modules() if n.rpartition(".")[2] in CROSS_ATTENTION]
    chosen: list[nn.Module] = []
    if train == "last_blocks":
        for side in ("encoder", "decoder"):
            chosen += _last_blocks(model, side, num_layers_to_train)
    elif train == "cross_attention":
        chosen = list(attentions)
    elif train == "full":
        chosen = [model]
    elif train != "lora":
        raise UserError(
            f"model.train={train!r}; expected one of {', '.join(TRAIN_MODES)}; set model.train=last_blocks"
        )
    if train == "cross_attention" and not attentions:
        raise UserError(
            f"model.train='cross_attention', and {type(model.decoder).__name__} has none by the name of "
            f"{', '.join(CROSS_ATTENTION)}; expected one; set model.train=last_blocks"
        )
    if train != "full":
        if new_weights:
            chosen += [m for m in attentions if not any(m is module for module in chosen)]
        if getattr(model, "enc_to_dec_proj", None) is not None:
            chosen.append(model.enc_to_dec_proj)
    if not chosen and not new_weights and train != "lora":
        raise UserError(
            "model.num_layers_to_train=0 leaves nothing to train; expected 1 or more; set model.num_layers_to_train=1 "
            "(to score the base alone: python eval.py ckpt_path=<hub id or saved folder>)"
        )
    for module in chosen:
        module.requires_grad_(True)
    for name in new_weights:
        model.get_parameter(name).requires_grad_(True)
    if getattr(model.encoder, "pooler", None) is not None:
        model.encoder.pooler.requires_grad_(False)
    return chosen


def _last_blocks(model: VisionEncoderDecoderModel, side: str, count: int) -> list[nn.Module]:
    blocks = find_blocks(getattr(model, side))
    if not 0 <= count <= len(blocks):
        raise UserError(
            f"model.num_layers_to_train={count}; expected 0 to {len(blocks)}, the blocks of the {side}; "
            "set model.num_layers_to_train=1"
        )
    return blocks[len(blocks) - count :]
