"""Which weights train: the last blocks of each half, found by structure and not by a list of names."""

from collections.abc import Collection

from torch import nn
from transformers import VisionEncoderDecoderModel

from src.utils.errors import UserError

TRAIN_CHOICES = ("last_blocks", "cross_attention", "lora", "full")
CROSS_ATTENTION = ("crossattention", "ln_cross_attn", "encoder_attn", "encoder_attn_layer_norm")


def find_blocks(half: nn.Module) -> list[nn.Module]:
    """The transformer blocks of an encoder or decoder, first to last.

    They are the items of the innermost lists of like modules (a Swin stage is itself a list of blocks), of the
    class that holds the most weights.

    Raises:
        UserError: the module has no list of blocks.
    """
    lists = [m for m in half.modules() if isinstance(m, nn.ModuleList) and len(m) and _is_innermost(m)]
    sizes: dict[type, int] = {}
    for block in (block for found in lists for block in found):
        sizes[type(block)] = sizes.get(type(block), 0) + sum(p.numel() for p in block.parameters())
    if not sizes:
        raise UserError(
            f"{type(half).__name__} has no list of transformer blocks; expected an encoder or decoder made of "
            "blocks; choose another model.checkpoint"
        )
    kind = max(sizes, key=lambda block: sizes[block])
    return [block for found in lists for block in found if type(block) is kind]


def _is_innermost(found: nn.ModuleList) -> bool:
    return not any(isinstance(m, nn.ModuleList) and m is not found and len(m) for m in found.modules())


def choose_trainable(
    model: VisionEncoderDecoderModel, train: str, num_layers_to_train: int, fresh: Collection[str] = ()
) -> list[nn.Module]:
    """Freeze the model but for what `train` names, and return the modules that train, whole.

    last_blocks: the last `num_layers_to_train` blocks of both halves. cross_attention: every cross-attention
    with its layer norm. lora: nothing yet, `add_lora` brings what trains. full: all but the unused pooler.
    `enc_to_dec_proj`, `fresh` weights and a cross-attention that has them always train.

    Raises:
        UserError: an unknown choice, more blocks than there are, or a decoder whose cross-attention has
            another name.
    """
    model.requires_grad_(False)
    crossing = [m for name, m in model.decoder.named_modules() if name.rpartition(".")[2] in CROSS_ATTENTION]
    chosen: list[nn.Module] = []
    if train == "last_blocks":
        chosen = [b for half in ("encoder", "decoder") for b in _last(model, half, num_layers_to_train)]
    elif train == "cross_attention":
        chosen = _named(crossing, model)
    elif train == "full":
        chosen = [model]
    elif train != "lora":
        raise UserError(
            f"model.train={train!r}; expected one of {', '.join(TRAIN_CHOICES)}; set model.train=last_blocks"
        )
    if fresh and train != "full":
        chosen += [m for m in crossing if not any(m is part for part in chosen)]
    if getattr(model, "enc_to_dec_proj", None) is not None and train != "full":
        chosen.append(model.enc_to_dec_proj)
    for module in chosen:
        module.requires_grad_(True)
    for name in fresh:
        model.get_parameter(name).requires_grad_(True)
    for name, weight in model.encoder.named_parameters():
        if name.startswith("pooler."):
            weight.requires_grad_(False)
    return chosen


def _last(model: VisionEncoderDecoderModel, half: str, count: int) -> list[nn.Module]:
    blocks = find_blocks(getattr(model, half))
    if not 0 <= count <= len(blocks):
        raise UserError(
            f"model.num_layers_to_train={count}; expected 0 to {len(blocks)}, the blocks of the {half}; "
            "set model.num_layers_to_train=1"
        )
    return blocks[len(blocks) - count :]


def _named(crossing: list[nn.Module], model: VisionEncoderDecoderModel) -> list[nn.Module]:
    if not crossing:
        raise UserError(
            f"model.train='cross_attention', and {type(model.decoder).__name__} has none by the name of "
            f"{', '.join(CROSS_ATTENTION)}; expected one; set model.train=last_blocks"
        )
    return crossing
