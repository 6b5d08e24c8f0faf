"""LoRA on encoder and decoder, cross-attention included, through `peft`: its settings, layers and weight names.

A product W x becomes W x + (lora_alpha / r) B A x, with A (r, in) random and B (out, r) zero at first.
"""

import re
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import VisionEncoderDecoderModel
from transformers.pytorch_utils import Conv1D

from src.models.freezing import find_blocks
from src.utils.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig

# Queries and values of ViT, DeiT, BEiT, Swin and BART; of BERT and RoBERTa; GPT-2 keeps them in one matrix, with
# the queries of its cross-attention apart.
TARGETS = ("q_proj", "v_proj", "query", "value", "q_attn", "c_attn")
LORA_WEIGHT = re.compile(r"(.+)\.lora_([AB])\.default\.weight")


def lora_config(settings: Mapping[str, Any] | None) -> "LoraConfig":
    """Build peft's `LoraConfig` from `model.lora`; rank 8 and `TARGETS` where nothing else is set.

    Raises:
        UserError: a setting that peft does not know or take.
    """
    from peft import LoraConfig

    given = {name: value for name, value in dict(settings or {}).items() if value is not None}
    if isinstance(given.get("target_modules", ""), str):  # peft would take one name as a pattern
        given["target_modules"] = [given["target_modules"]] if "target_modules" in given else list(TARGETS)
    try:
        config = LoraConfig(**{"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, **given})
        if not (config.r >= 1 and config.lora_alpha > 0 and 0 <= config.lora_dropout < 1):
            raise ValueError("r is 1 or more, lora_alpha above 0 and lora_dropout from 0 to below 1")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"model.lora={given}: {error}; expected settings of peft.LoraConfig such as r=8, lora_alpha=16, "
            "lora_dropout=0.0, target_modules, layers_to_transform; set model.lora.r=8"
        ) from error
    return config


def add_lora(
    model: VisionEncoderDecoderModel, config: "LoraConfig", new_weights: Collection[str] = ()
) -> list[nn.Module]:
    """Wrap the target layers of encoder and decoder; returns the modules that train.

    new_weights: newly initialized weights; their layers train whole and get no adapter.

    Raises:
        UserError: encoder or decoder has no target.
    """
    from peft import inject_adapter_in_model

    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    targets = sorted(set(_find_targets(model, config, new_weights)))
    config.target_modules = targets
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fan_in_fan_out.*")  # Conv1D and Linear stand in one model
        inject_adapter_in_model(config, model)
    for name in trained:
        model.get_parameter(name).requires_grad_(True)
    layers: list[Any] = [model.get_submodule(name) for name in targets]
    return [module for layer in layers for module in (layer.lora_A, layer.lora_B, layer.lora_dropout)]


def _find_targets(
    model: VisionEncoderDecoderModel, config: "LoraConfig", new_weights: Collection[str]
) -> list[str]:
    """The names of the layers that get an adapter: `target_modules` of the blocks in `layers_to_transform`."""
    chosen, suffixes = config.layers_to_transform, config.target_modules or ()
    config.layers_to_transform = None  # the full names that are returned hold it
    found = []
    for side in ("encoder", "decoder"):
        blocks = find_blocks(getattr(model, side))
        numbers = range(len(blocks)) if chosen is None else [chosen] if isinstance(chosen, int) else chosen
        inside = {id(module) for k in numbers if k < len(blocks) for module in blocks[k].modules()}
        linear = [
            name for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and id(module) in inside and f"{name}.weight" not in new_weights
        ]  # fmt: skip
        targets = [name for name in linear if name.rpartition(".")[2] in suffixes]
        if not targets:
            names = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "its linear layers"
            raise UserError(
                f"model.lora.target_modules={sorted(suffixes)} with layers_to_transform={chosen} names no layer of "
                f"the {side}; expected some of {names} in blocks 0 to {len(blocks) - 1}; "
                "set model.lora.target_modules=[...]"
            )
        found += targets
    return found


def adapted_names(model: VisionEncoderDecoderModel, names: Mapping[str, str]) -> dict[str, str]:
    """`hub_parameter_names`, taken before `add_lora`, for the model as it is after it, adapters named as by peft.

    Example: `h.0.attn.c_attn.lora_A.default.weight` -> `decoder.transformer.h.0.attn.c_attn.lora_A.weight`.
    """
    adapted = {}
    for name in model.state_dict():
        found = LORA_WEIGHT.fullmatch(name)
        if found:
            layer, matrix = found.groups()
            adapted[name] = names[f"{layer}.weight"].removesuffix("weight") + f"lora_{matrix}.weight"
        else:
            adapted[name] = names[name.replace(".base_layer.", ".")]
    return adapted


def merge_adapter(model: nn.Module) -> None:
    """Add every adapter to the weights of its layer and remove it; without adapters nothing changes."""
    if not any(LORA_WEIGHT.fullmatch(name) for name, _ in model.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge(safe_merge=True)  # type: ignore[operator]
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, layer.get_base_layer())
