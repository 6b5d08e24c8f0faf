"""Choose which weights train: last blocks, cross-attention, LoRA or all; blocks are found by structure.

LoRA: a product W x becomes W x + (lora_alpha / r) B A x, with A (r, in) random and B (out, r) zero at first.
"""

import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn
from transformers import VisionEncoderDecoderModel as Model
from transformers.pytorch_utils import Conv1D

from src.utils.errors import UserError

CROSS_ATTENTION = ("crossattention", "ln_cross_attn", "encoder_attn", "encoder_attn_layer_norm")
# Queries and values of ViT, DeiT, BEiT, Swin and BART; of BERT and RoBERTa; GPT-2 keeps them in one matrix, with
# its cross-attention queries separate.
LORA_TARGETS = ("q_proj", "v_proj", "query", "value", "q_attn", "c_attn")


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks of an encoder or decoder, first to last; UserError where it has none.

    They are the items of the innermost module lists (a Swin stage is a list itself), of the class with most weights.
    """
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m)]
    innermost = [found for found in lists if not any(m in lists for m in list(found.modules())[1:])]
    blocks = [block for found in innermost for block in found]
    sizes: Counter[type] = Counter()
    for block in blocks:
        sizes[type(block)] += sum(weight.numel() for weight in block.parameters())
    if not sizes:
        raise UserError(
            f"{type(model).__name__} has no list of transformer blocks; expected an encoder or decoder made of "
            "blocks; choose another model.checkpoint"
        )
    return [block for block in blocks if type(block) is sizes.most_common(1)[0][0]]


def has_block_list(encoder: Any) -> bool:
    """Whether the encoder is embeddings, one list of blocks and a layer norm (ViT, DeiT, BEiT; not Swin's stages)."""
    return hasattr(encoder, "layernorm") and list(getattr(encoder, "layers", [])) == find_blocks(encoder)


def count_frozen_blocks(encoder: nn.Module) -> int:
    """Count the frozen blocks at the beginning; 0 without a single list, or where what all blocks use trains."""
    blocks = find_blocks(encoder) if has_block_list(encoder) else []
    inside = {id(weight) for block in blocks for weight in block.parameters()}
    for name, weight in encoder.named_parameters():
        if weight.requires_grad and id(weight) not in inside and not name.startswith("layernorm."):
            return 0
    return [*(any(weight.requires_grad for weight in block.parameters()) for block in blocks), True].index(True)


def choose_trainable(
    model: Model, train: str, num_layers_to_train: int, new_weights: Collection[str] = ()
) -> list[nn.Module]:
    """Freeze the model but for what `train` names; returns the modules that train whole, UserError without any.

    `lora` chooses nothing yet: `add_lora` adds what trains. `enc_to_dec_proj`, newly initialized weights and a
    cross-attention that has them always train; an unused pooler never.
    """
    model.requires_grad_(False)
    chosen: list[nn.Module] = [model] if train == "full" else []
    for side in ("encoder", "decoder") if train == "last_blocks" else ():
        blocks = find_blocks(getattr(model, side))
        if not 0 <= num_layers_to_train <= len(blocks):
            raise UserError(
                f"model.num_layers_to_train={num_layers_to_train}; expected 0 to {len(blocks)}, the blocks of "
                f"the {side}; set model.num_layers_to_train=1"
            )
        chosen += blocks[len(blocks) - num_layers_to_train :]
    if train == "cross_attention" or (train != "full" and new_weights):
        inside = {module for block in chosen for module in block.modules()}
        named = model.decoder.named_modules()
        chosen += [m for name, m in named if name.rpartition(".")[2] in CROSS_ATTENTION and m not in inside]
    if train != "full" and getattr(model, "enc_to_dec_proj", None) is not None:
        chosen.append(model.enc_to_dec_proj)
    if train != "lora" and not chosen and not new_weights:
        raise UserError(
            f"model.train={train} and model.num_layers_to_train={num_layers_to_train} find nothing to train in this "
            "model; expected 1 block or more; set model.train=last_blocks and model.num_layers_to_train=1 "
            "(to score the base alone: python eval.py ckpt_path=<hub id or saved folder>)"
        )
    for module in chosen:
        module.requires_grad_(True)
    for name in new_weights:
        model.get_parameter(name).requires_grad_(True)
    if getattr(model.encoder, "pooler", None) is not None:
        model.encoder.pooler.requires_grad_(False)
    return chosen


def add_lora(model: Model, settings: Mapping[str, Any] | None, new_weights: Collection[str] = ()) -> list[nn.Module]:
    """Give linear layers of encoder and decoder, cross-attention included, adapters; returns the modules that train.

    settings: of `peft.LoraConfig`; UserError where peft does not take them, or encoder or decoder has no such layer.
    The layers of new_weights, which are newly initialized, train whole and get no adapter.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    given = {name: value for name, value in (settings or {}).items() if value is not None}
    targets = given.pop("target_modules", LORA_TARGETS)
    given["target_modules"] = [targets] if isinstance(targets, str) else list(targets)  # one name would be a pattern
    given["exclude_modules"] = [name.rpartition(".")[0] for name in new_weights]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        config = LoraConfig(**{"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, **given})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fan_in_fan_out.*")  # Conv1D and Linear stand in one model
            inject_adapter_in_model(config, model)
        for side in ("encoder", "decoder"):
            modules = dict(getattr(model, side).named_modules())
            if not any(isinstance(module, LoraLayer) for module in modules.values()):
                names = {n.rpartition(".")[2] for n, m in modules.items() if isinstance(m, nn.Linear | Conv1D)}
                raise ValueError(f"no layer of the {side}'s {', '.join(sorted(names))} is among {targets}")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"model.lora={dict(settings or {})}: {error}; expected settings of peft.LoraConfig such as r=8, "
            "lora_alpha=16, lora_dropout=0.0, target_modules, layers_to_transform; set model.lora.r=8"
        ) from error
    for weight in trained:
        weight.requires_grad_(True)
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return [module for layer in layers for module in (layer.lora_A, layer.lora_B, layer.lora_dropout)]


def adapted_names(model: Model, names: Mapping[str, str]) -> dict[str, str]:
    """Hub names of a model with adapters, as peft names them: `..c_attn.lora_A.weight`; names: before `add_lora`."""
    adapted = {}
    for name in model.state_dict():
        layer, _, matrix = name.partition(".lora_")  # "A.default.weight" or "B.default.weight"
        base = names[f"{layer}.weight" if matrix else name.replace(".base_layer.", ".")]
        adapted[name] = f"{base.removesuffix('weight')}lora_{matrix[0]}.weight" if matrix else base
    return adapted


def merge_adapter(model: nn.Module) -> None:
    """Add every adapter to the weights of its layer and remove it; without adapters nothing changes."""
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "lora_A"):
            layer.merge(safe_merge=True)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, layer.get_base_layer())
