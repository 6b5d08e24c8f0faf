"""Check a composed config and report all mistakes at once, each as `key=found; expected; do this`."""

import difflib
import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from src.utils.entry import heavy_imports
from src.utils.errors import ConfigErrors
from src.utils.run_folder import flat, shown

FOR_HYDRA = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
PACKAGES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "CometLogger": "comet_ml"}  # imported when used

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
OrMinusOne = Annotated[int, Field(ge=-1)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
GENERATION: dict[str, Any] = {  # settings of captions: of `model.generation`, of Captioner and of the commands
    "max_length": Annotated[int, Field(ge=2)],
    "min_length": Whole,
    "num_beams": Annotated[int, Field(ge=1, le=128)],
    "length_penalty": Annotated[float, Field(allow_inf_nan=False)],
    "no_repeat_ngram_size": Whole,
    "repetition_penalty": Positive,
    "do_sample": bool,
    "temperature": Positive,
    "top_p": Annotated[float, Field(gt=0, le=1)],
    "seed": Annotated[int, Field(ge=0, le=2**32 - 1)],  # NumPy takes no larger one
}
RULES: dict[str, Any] = {  # regular expressions of keys
    r"datamodule\.batch_size|trainer\.(accumulate_grad_batches|num_nodes)": Count,
    r"model\.lr_scheduler\.frequency|callbacks\.feature_cache\.views": Count,
    r"datamodule\.(num_samples|captions_per_image|max_caption_tokens)|trainer\.log_every_n_steps": Count | None,
    r"datamodule\.(num_workers|fold)": Whole | None,
    r"datamodule\.split_ratios": Annotated[list[Number], Field(min_length=3, max_length=3)],
    r"datamodule\.num_folds": Annotated[int, Field(ge=3)],
    r"datamodule\.max_skipped|model\.lr_scheduler\.scheduler\.warmup|model\.label_smoothing": Fraction,
    r"model\.objective": Literal["cross_entropy", "scst"],
    r"model\.scst\.num_samples": Annotated[int, Field(ge=2)],
    r"model\.scst\.cross_entropy_weight": Fraction,
    r"model\.train": Literal["last_blocks", "cross_attention", "lora", "full"],
    r"model\.image_size": Count | None,
    **{rf"model\.generation\.{name}": rule for name, rule in GENERATION.items()},
    r"model\.generation\.max_length": GENERATION["max_length"] | None,
    r"model\.num_layers_to_train|callbacks\..*\.patience": Whole,
    r"model\.optimizer\.(lr|weight_decay)|model\.encoder_lr_factor": Number,
    r"model\.lr_scheduler\.interval": Literal["step", "epoch"],
    r"trainer\.accelerator": Literal["cpu", "gpu", "cuda", "mps", "auto"],
    r"trainer\.strategy": Literal["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"],
    r"trainer\.barebones": Literal[False],  # it would log nothing
    r"trainer\.precision": Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true",
                                   "32", "16", "bf16", "64", 32, 16, 64, None],
    r"trainer\.max_epochs": OrMinusOne | None,
    r"trainer\.max_steps|callbacks\..*\.save_top_k": OrMinusOne,
    r"trainer\.gradient_clip_val": Number | None,
    r"trainer\.limit_.*_batches": Whole | Fraction | None,
    r"callbacks\.caption_samples\.min_distinct_fraction": Fraction,
    r"callbacks\.ema\.decay": Annotated[float, Field(gt=0, lt=1)] | None,
    r"callbacks\..*\.mode": Literal["min", "max"],
    r"seed": GENERATION["seed"] | None,
    r"train|test|zero_shot": bool,
}  # fmt: skip


def check_config(config: DictConfig) -> None:
    """Raise `ConfigErrors` with one line for each mistake in a composed config."""
    if problems := find_problems(config):
        raise ConfigErrors(problems)


def find_problems(config: DictConfig) -> list[str]:
    """Return one line for each mistake: ranges and conflicts, and once these are right, names and types.

    Importing the classes takes seconds, which a mistake found without them need not wait for.
    """
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    problems: list[str] = []
    values = dict(_resolve(own, problems))
    for key, value in values.items():
        if expected := type_error(value, find_rule(key)):
            problems.append(f"{key}={shown(value)}; expected {expected}; set {key}")
        if key.startswith("callbacks.") and key.endswith(".mode") and value == "max":
            monitor = values.get(key.removesuffix("mode") + "monitor")
            if "loss" in str(monitor):
                problems.append(f"{key}=max with monitor={monitor}; expected min for a loss; set {key}=min")
    targets = [] if problems else [key.removesuffix("._target_") for key in values if key.endswith("._target_")]
    with heavy_imports():
        problems += [line for key in targets for line in _check_target(key, values)]
    return list(dict.fromkeys(problems))


def find_rule(key: str) -> Any:
    """Return the annotation that `RULES` has for a dotted key, `Any` without one."""
    return next((rule for pattern, rule in RULES.items() if re.fullmatch(pattern, key)), Any)


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
        importlib.import_module(PACKAGES.get(kind, "src"))
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
        if name not in parameters and not is_open:
            near = difflib.get_close_matches(name, list(parameters), n=1)
            hint = f"did you mean {key}.{near[0]}?" if near else f"remove {setting}"
            yield f"{setting}={shown(value)}; expected a setting of {kind} ({', '.join(parameters)}); {hint}"
        elif not rest and find_rule(setting) is Any and (expected := type_error(value, parameters.get(name, Any))):
            yield f"{setting}={shown(value)}; expected {expected}; set {setting}"


def read_signature(path: str) -> tuple[dict[str, Any], bool]:
    """Import a dotted path; return its parameters' annotations and whether it takes other names as well.

    `**kwargs` of our classes are those of their parent classes. ImportError, AttributeError: there is no such name.
    """
    module, _, name = path.rpartition(".")
    target = getattr(importlib.import_module(module), name)
    ours = inspect.isclass(target) and target.__module__.startswith("src.")
    parameters: dict[str, Any] = {}
    for function in [kind.__init__ for kind in target.__mro__ if "__init__" in vars(kind)] if ours else [target]:
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
