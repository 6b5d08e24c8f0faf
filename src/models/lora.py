"""LoRA on both halves, cross-attention included: small matrices beside frozen ones, through `peft`.

A product W x becomes W x + (alpha / rank) B A x, with A (rank, in) drawn at random and B (out, rank) zero at first.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn
from transformers import VisionEncoderDecoderModel
from transformers.pytorch_utils import Conv1D

from src.models.freezing import find_blocks
from src.utils.errors import UserError

# Queries and values of ViT, DeiT, BEiT, Swin and BART; of BERT and RoBERTa; GPT-2 keeps them in one matrix, with
# the queries of its cross-attention apart.
TARGETS = ("q_proj", "v_proj", "query", "value", "q_attn", "c_attn")
LORA_WEIGHT = re.compile(r"(.+)\.lora_([AB])\.default\.weight")


@dataclass(frozen=True)
class LoraSettings:
    """What `model.lora` may hold.

    rank, alpha: of the update. dropout: share of its inputs to drop while training. num_layers: last blocks of
    each half that get one, None for all. targets: names of the linear layers in a block that get one.
    """

    rank: int = 2
    alpha: int = 16
    dropout: float = 0.0
    num_layers: int | None = None
    targets: tuple[str, ...] = TARGETS


def lora_settings(values: Mapping[str, Any] | None) -> LoraSettings:
    """The settings of a config.

    Raises:
        UserError: an unknown name, or a value out of range.
    """
    given = dict(values or {})
    known = [field.name for field in fields(LoraSettings)]
    for name in given:
        if name not in known:
            raise UserError(
                f"model.lora.{name}={given[name]!r} is not known; expected one of {', '.join(known)}; "
                f"remove model.lora.{name}"
            )
    if given.get("targets") is None:
        given.pop("targets", None)
    settings = LoraSettings(**given | ({"targets": tuple(given["targets"])} if "targets" in given else {}))
    if settings.rank < 1 or settings.alpha <= 0 or not 0 <= settings.dropout < 1:
        raise UserError(
            f"model.lora has rank={settings.rank}, alpha={settings.alpha}, dropout={settings.dropout}; expected a "
            "rank of 1 or more, an alpha over 0 and a dropout from 0 to below 1; set model.lora.rank=2"
        )
    return settings


def resolve_train_mode(train: str, adapter: str | None) -> str:
    """`model.train` with `model.adapter=lora`, which is another word for `model.train=lora`.

    Raises:
        UserError: an unknown adapter, or another way to train beside it.
    """
    if adapter not in (None, "lora"):
        raise UserError(f"model.adapter={adapter!r}; expected lora or null; set model.adapter=lora")
    if adapter and train not in ("last_blocks", "lora"):
        raise UserError(
            f"model.adapter=lora with model.train={train}; expected one way to train; leave one of them out"
        )
    return adapter or train


def add_lora(
    model: VisionEncoderDecoderModel, settings: LoraSettings, fresh: Collection[str] = ()
) -> list[nn.Module]:
    """Wrap the target layers of both halves; what was there stays frozen. Returns the modules that train.

    fresh: weights that were made at random; their layers train whole and get no adapter.

    Raises:
        UserError: more blocks asked for than there are, or a half without a target.
    """
    from peft import LoraConfig, inject_adapter_in_model

    wrapped: list[nn.Module] = []
    for name in ("encoder", "decoder"):
        half: Any = getattr(model, name)
        trained = {weight for weight, value in half.named_parameters() if value.requires_grad}
        found = _targets(name, half, settings, {weight.removeprefix(f"{name}.") for weight in fresh})
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=list(found),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in found.values()),
        )  # fmt: skip
        inject_adapter_in_model(config, half)
        for weight in trained:
            half.get_parameter(weight).requires_grad_(True)
        for target in found:
            layer = half.get_submodule(target)
            wrapped += [layer.lora_A, layer.lora_B, layer.lora_dropout]
    return wrapped


def _targets(
    name: str, half: nn.Module, settings: LoraSettings, fresh: Collection[str]
) -> dict[str, nn.Module]:
    """The layers of a half that get an adapter, by their name in it."""
    blocks = find_blocks(half)
    count = len(blocks) if settings.num_layers is None else settings.num_layers
    if not 1 <= count <= len(blocks):
        raise UserError(
            f"model.lora.num_layers={count}; expected 1 to {len(blocks)}, the blocks of the {name}, or null for "
            "all; set model.lora.num_layers=null"
        )
    inside = {id(part) for block in blocks[-count:] for part in block.modules()}
    linear = {
        path: part
        for path, part in half.named_modules()
        if isinstance(part, nn.Linear | Conv1D) and id(part) in inside and f"{path}.weight" not in fresh
    }
    found: dict[str, nn.Module] = {
        path: part for path, part in linear.items() if path.rpartition(".")[2] in settings.targets
    }
    if not found:
        names = sorted({path.rpartition(".")[2] for path in linear})
        raise UserError(
            f"model.lora.targets={list(settings.targets)} names no layer of the {name}; expected some of "
            f"{', '.join(names)}; set model.lora.targets=[...]"
        )
    return found


def adapted_names(model: VisionEncoderDecoderModel, names: Mapping[str, str]) -> dict[str, str]:
    """`hub_parameter_names`, taken before `add_lora`, for the model as it is after it.

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
    """Add every adapter to the weights that it stands beside and take it away; without one nothing changes."""
    if not any(LORA_WEIGHT.fullmatch(name) for name, _ in model.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge(safe_merge=True)  # type: ignore[operator]
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, layer.get_base_layer())
