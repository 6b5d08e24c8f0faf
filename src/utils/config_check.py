"""Check a composed config and report all mistakes at once, each as `key=found; expected; do this`."""

import difflib
import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from src.utils.errors import ConfigErrors, UserError
from src.utils.run_folder import checkpoint_file, flat, shown

FOR_HYDRA = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
PACKAGES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "CometLogger": "comet_ml"}  # imported when used

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
OrMinusOne = Annotated[int, Field(ge=-1)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
RULES: dict[str, Any] = {
    "datamodule.batch_size": Count,
    "datamodule.num_samples": Count | None,
    "datamodule.captions_per_image": Count | None,
    "datamodule.max_caption_tokens": Count | None,
    "datamodule.num_workers": Whole | None,
    "datamodule.split_ratios": Annotated[list[Number], Field(min_length=3, max_length=3)],
    "datamodule.num_folds": Annotated[int, Field(ge=3)],
    "datamodule.fold": Whole | None,
    "datamodule.max_skipped": Fraction,
    "model.train": Literal["last_blocks", "cross_attention", "lora", "full"],
    "model.num_beams": Annotated[int, Field(ge=1, le=1000)],
    "model.max_length": Annotated[int, Field(ge=2)] | None,
    "model.num_layers_to_train": Whole,
    "model.optimizer.lr": Number,
    "model.optimizer.weight_decay": Number,
    "model.lr_scheduler.interval": Literal["step", "epoch"],
    "model.lr_scheduler.frequency": Count,
    "model.lr_scheduler.scheduler.warmup": Fraction,
    "trainer.accelerator": Literal["cpu", "gpu", "cuda", "mps", "auto"],
    "trainer.strategy": Literal["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"],
    "trainer.barebones": Literal[False],  # it would log nothing
    "trainer.precision": Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true",
                                 "32", "16", "bf16", "64", 32, 16, 64, None],
    "trainer.max_epochs": OrMinusOne | None,
    "trainer.max_steps": OrMinusOne,
    "trainer.accumulate_grad_batches": Count,
    "trainer.gradient_clip_val": Number | None,
    "trainer.num_nodes": Count,
    "trainer.log_every_n_steps": Count | None,
    "trainer.limit_*_batches": Whole | Fraction | None,
    "callbacks.feature_cache.views": Count,
    "callbacks.*.mode": Literal["min", "max"],
    "callbacks.*.patience": Whole,
    "callbacks.*.save_top_k": OrMinusOne,
    "seed": Annotated[int, Field(ge=0, le=2**32 - 1)] | None,  # NumPy takes no larger one
    "train": bool,
    "test": bool,
    "zero_shot": bool,
}  # fmt: skip


def check_config(config: DictConfig) -> None:
    """Raise `ConfigErrors` with one line for each mistake in a composed config."""
    if problems := find_problems(config):
        raise ConfigErrors(problems)


def find_problems(config: DictConfig) -> list[str]:
    """Return one line for each mistake: ranges, conflicts and paths, and once these are right, names and types.

    Importing the classes takes seconds, which a mistake found without them need not wait for.
    """
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    problems: list[str] = []
    values = dict(_resolve(own, problems))
    for key, value in values.items():
        rule = find_rule(key)
        if rule is not None and (expected := type_error(value, rule)):
            problems.append(f"{key}={shown(value)}; expected {expected}; set {key}")
    problems += [*_find_conflicts(values), *_check_paths(values)]
    for key in [] if problems else [key for key in values if key.endswith("._target_")]:
        problems += _check_target(key.removesuffix("._target_"), values)
    return list(dict.fromkeys(problems))


def find_rule(key: str) -> Any:
    """Return the annotation that `RULES` has for a dotted key, None without one."""
    return next((rule for pattern, rule in RULES.items() if fnmatchcase(key, pattern)), None)


def type_error(value: Any, annotation: Any) -> str:
    """Return what an annotation expects, "" where a plain value fits or the type is unknown to pydantic.

    Strict, as JSON: text is no number and a number is no boolean, but a list also stands for a tuple.
    """
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_json(json.dumps(value, default=str), strict=True)
    except (PydanticUserError, NameError, TypeError):
        return ""
    except ValidationError as error:
        messages = [found["msg"].removeprefix("Input should be ") for found in error.errors()]
        return " or ".join(dict.fromkeys(re.sub("^(greater|less)", r"a value \1", text) for text in messages))
    return ""


def _find_conflicts(values: Mapping[str, Any]) -> Iterator[str]:
    get = values.get
    for key, value in values.items():
        monitor = get(key.rpartition(".")[0] + ".monitor")
        if fnmatchcase(key, "callbacks.*.mode") and value == "max" and "loss" in str(monitor):
            yield f"{key}=max with monitor={monitor}; expected min, a lower loss is better; set {key}=min"
    precision = get("trainer.precision")
    if get("trainer.accelerator") == "cpu" and str(precision) in ("16", "16-mixed", "16-true"):
        found = f"trainer.precision={precision} with trainer.accelerator=cpu"
        yield f"{found}; expected bf16-mixed or 32-true, a CPU has no fp16; set trainer.precision=null"


def _check_paths(values: Mapping[str, Any]) -> Iterator[str]:
    folder, ckpt_path = values.get("datamodule.data_dir"), values.get("ckpt_path")
    if "train" not in values:  # eval.py takes the data from the checkpoint's config
        if "predictions" in values and ckpt_path is None and values["predictions"] is None:
            yield (
                "ckpt_path is not set; expected a checkpoint to score; set ckpt_path=<run>/checkpoints/best.ckpt, "
                "ckpt_path=last or predictions=<csv>"
            )
        return
    given = not values.get("datamodule.download") and isinstance(folder, str)
    if given and str(values.get("datamodule._target_")).startswith("src.datamodule."):
        path = Path(str(folder)).expanduser().absolute()
        if not path.is_dir():
            siblings = [entry.name for entry in path.parent.glob("*") if entry.is_dir()]
            near = difflib.get_close_matches(path.name, siblings, n=1)
            hint = f"did you mean datamodule.data_dir={path.parent / near[0]}?" if near else "set it"
            yield f"datamodule.data_dir={folder} does not exist; expected captions and images; {hint}"
    if ckpt_path is not None and "paths.log_dir" in values:
        try:
            task = values.get("task_name")
            checkpoint_file(str(ckpt_path), values["paths.log_dir"], "ckpt_path", task, "last", saved=False)
        except UserError as error:
            yield str(error)


def _resolve(config: DictConfig, problems: list[str]) -> Iterator[tuple[str, Any]]:
    for key, raw in flat(OmegaConf.to_container(config, resolve=False)):
        if raw == "???":
            problems.append(f"{key}=???; expected a value; set {key}")
            continue
        try:
            value = OmegaConf.select(config, key)
            yield key, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException as error:
            if not any(text in str(raw) for text in ("hydra:", "paths.")):
                problems.append(f"{key}={raw}; {' '.join(str(error).split())}")


def _check_target(key: str, values: Mapping[str, Any]) -> Iterator[str]:
    path = str(values[f"{key}._target_"])
    kind = path.rpartition(".")[2]
    try:
        if kind in PACKAGES:
            importlib.import_module(PACKAGES[kind])
        parameters, is_open = read_signature(path)
    except (ImportError, AttributeError) as error:
        missing = str(error.name).partition(".")[0] if isinstance(error, ImportError) else "src"
        if missing == "src":
            yield f"{key}._target_={path}; expected a class or function that exists; correct the name"
        else:
            chosen = "=".join(key.rsplit(".", 1))
            yield f"{chosen} needs the package {missing}; expected it to be installed; pip install {missing}"
        return
    for setting, value in values.items():
        name, _, rest = setting.removeprefix(f"{key}.").partition(".")
        if not setting.startswith(f"{key}.") or name in FOR_HYDRA:
            continue
        if name not in parameters:
            near = difflib.get_close_matches(name, list(parameters), n=1)
            hint = f"did you mean {key}.{near[0]}?" if near else f"remove {setting}"
            if not is_open:
                yield f"{setting}={shown(value)}; expected a setting of {kind} ({', '.join(parameters)}); {hint}"
        elif not rest and find_rule(setting) is None and (expected := type_error(value, parameters[name])):
            yield f"{setting}={shown(value)}; expected {expected}; set {setting}"


def read_signature(path: str) -> tuple[dict[str, Any], bool]:
    """Import a dotted path; return its parameters' annotations and whether it takes other names as well.

    `**kwargs` of our classes are those of their parent classes. ImportError, AttributeError: there is no such name.
    """
    module, _, name = path.rpartition(".")
    target = getattr(importlib.import_module(module), name)
    ours = inspect.isclass(target) and target.__module__.startswith("src.")
    functions = [kind.__init__ for kind in target.__mro__ if "__init__" in vars(kind)] if ours else [target]
    parameters: dict[str, Any] = {}
    for function in functions:
        try:
            listed = inspect.signature(function, eval_str=True).parameters.values()
        except (ValueError, NameError, TypeError):  # a builtin, or names that exist for a type checker alone
            return {}, True
        for one in listed:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name != "self":
                parameters.setdefault(one.name, Any if one.annotation is one.empty else one.annotation)
        if not any(one.kind == one.VAR_KEYWORD for one in listed):
            return parameters, False
    return parameters, True
