"""Check a composed config against the signatures that its `_target_`s name, and report all mistakes at once.

Names are bound with `inspect.signature`, values are validated by pydantic in strict mode, both for this project's
classes and for those of libraries. What a signature cannot say stands in `config_rules.py`.
"""

import difflib
import importlib
import inspect
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.utils.config_rules import find_conflicts, find_rule, fits
from src.utils.errors import ConfigErrors, UserError
from src.utils.run_folder import find_checkpoint

FOR_HYDRA = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
PACKAGES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "CometLogger": "comet_ml"}
NEPTUNE_IS_GONE = (
    "logger=neptune; expected a service that exists, Neptune closed and Lightning 2.6 dropped its logger; "
    "set logger=tensorboard"
)
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


@dataclass(frozen=True)
class Signature:
    """Parameters of a callable, each with its annotation; open: it also takes names that are not listed."""

    parameters: Mapping[str, Any]
    open: bool


def check_config(config: DictConfig) -> None:
    """Check a composed config.

    Raises:
        ConfigErrors: a key that its class does not take, a value of the wrong type or out of range, settings
            that contradict each other, a package, a folder or a checkpoint that does not exist.
    """
    problems = find_problems(config)
    if problems:
        raise ConfigErrors(problems)


def find_problems(config: DictConfig) -> list[str]:
    """Return one line for each mistake: key=found; expected; what to do.

    Ranges, conflicts and paths come first; names and types of all other settings once these are right.
    """
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    problems: list[str] = []
    values = dict(_plain_values(own, "", problems))
    for key, value in values.items():
        rule = find_rule(key)
        if rule and not fits(value, rule.annotation):
            problems.append(f"{key}={_shown(value)}; expected {rule.expected}; set {key}")
    problems += find_conflicts(values)
    problems += _check_paths(values)
    if (
        not problems
    ):  # importing the classes takes seconds, which a mistake found without them need not wait for
        for key, node in _target_nodes(own, ""):
            problems += _check_target(key, node, values)
    return list(dict.fromkeys(problems))


def _plain_values(node: Any, prefix: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield every key, dotted, with its plain value; values that are known only while a job runs are not yielded."""
    for name in node:
        key = f"{prefix}{name}"
        if OmegaConf.is_missing(node, name):
            problems.append(f"{key}=???; expected a value; set {key}")
            continue
        try:
            value = node[name]
            plain = OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value
        except OmegaConfBaseException as error:
            raw = OmegaConf.to_container(node, resolve=False)[name]  # type: ignore[index, call-overload]
            if not any(word in str(raw) for word in ("hydra:", "paths.")):
                problems.append(f"{key}={raw}; {' '.join(str(error).split())}")
            continue
        if isinstance(value, DictConfig):
            yield key, None if value._is_none() else {}
            yield from () if value._is_none() else _plain_values(value, f"{key}.", problems)
        else:
            yield key, plain


def _target_nodes(node: Any, prefix: str) -> Iterator[tuple[str, DictConfig]]:
    """Yield every node with a `_target_`, with its dotted key."""
    if node._is_none():
        return
    if "_target_" in node:
        yield prefix, node
    for name in node:
        unknown = OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name)
        child = None if unknown else node[name]
        if isinstance(child, DictConfig):
            yield from _target_nodes(child, f"{prefix}.{name}" if prefix else str(name))


def _check_target(key: str, node: Any, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each argument that the target does not take or that has the wrong type."""
    path = str(node["_target_"])
    if path.endswith(".NeptuneLogger"):
        yield NEPTUNE_IS_GONE
        return
    package = PACKAGES.get(path.rpartition(".")[2])
    try:
        if package:
            importlib.import_module(package)
        signature = read_signature(path)
    except (ImportError, AttributeError) as error:
        yield _missing_target(key, path, error.name if isinstance(error, ImportError) else None)
        return
    for name in (str(name) for name in node if name not in FOR_HYDRA and f"{key}.{name}" in values):
        value, setting = values[f"{key}.{name}"], f"{key}.{name}"
        if name not in signature.parameters:
            if not signature.open:
                yield _unknown_setting(setting, name, value, path, signature)
        # An object's type is not known here, and an interpolation is reported where it points to.
        elif (
            not find_rule(setting)
            and not _is_object(node, name)
            and not OmegaConf.is_interpolation(node, name)
        ):
            annotation = signature.parameters[name]
            if not fits(value, annotation):
                yield f"{setting}={_shown(value)}; expected {describe_type(annotation)}; set {setting}"


def read_signature(path: str) -> Signature:
    """Import a dotted path and return its signature; `**kwargs` of our classes are those of their parent classes.

    Raises:
        ImportError, AttributeError: there is no such module or name.
    """
    module, _, name = path.rpartition(".")
    target = getattr(importlib.import_module(module), name)
    ours = inspect.isclass(target) and target.__module__.startswith("src.")
    functions = [kind.__init__ for kind in target.__mro__ if "__init__" in vars(kind)] if ours else [target]
    parameters: dict[str, Any] = {}
    for function in functions:
        try:
            listed = inspect.signature(function).parameters.values()
        except ValueError:  # a builtin without a signature
            return Signature({}, True)
        hints = _type_hints(function)
        kinds = {parameter.kind for parameter in listed}
        for parameter in listed:
            if (
                parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
                and parameter.name != "self"
            ):
                parameters.setdefault(parameter.name, hints.get(parameter.name, Any))
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return Signature(parameters, False)
    return Signature(parameters, True)


def _type_hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(
            function.__init__ if inspect.isclass(function) else function, include_extras=True
        )
    except (NameError, TypeError, AttributeError):  # names that exist for a type checker alone
        return {}


def describe_type(annotation: Any) -> str:
    """Return what an annotation accepts, in words: `int | None` is "a whole number or null"."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(describe_type(choice) for choice in get_args(annotation)))
    if origin is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if annotation is type(None):
        return "null"
    kind = origin or annotation
    if kind in TYPE_NAMES:
        return TYPE_NAMES[kind]
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return "a mapping {key: value}"
    if inspect.isclass(kind) and issubclass(kind, (Sequence, Set, Collection)):
        return "a list [a,b]"
    return getattr(kind, "__name__", str(kind))


def _is_object(node: DictConfig, name: Any) -> bool:
    """Whether the value is itself something to instantiate."""
    child = node._get_node(name)
    return isinstance(child, DictConfig) and not child._is_none() and "_target_" in child


def _missing_target(key: str, path: str, module: str | None) -> str:
    """Return the line about a target that cannot be imported: a package that is missing, or a wrong name."""
    package = PACKAGES.get(path.rpartition(".")[2]) or str(module or path).partition(".")[0]
    if package == "src" or (module is None and not PACKAGES.get(path.rpartition(".")[2])):
        return f"{key}._target_={path}; expected a class or function that exists; correct the name"
    group, _, name = key.rpartition(".")
    chosen = f"{group}={name}" if group else f"{key}._target_={path}"
    return f"{chosen} needs the package {package}; expected it to be installed; pip install {package}"


def _unknown_setting(setting: str, name: str, value: Any, path: str, signature: Signature) -> str:
    near = difflib.get_close_matches(name, list(signature.parameters), n=1)
    kind = path.rpartition(".")[2]
    if near:
        hint = f"did you mean {setting.rpartition('.')[0]}.{near[0]}?"
        return f"{setting}={_shown(value)}; expected a setting of {kind}; {hint}"
    names = ", ".join(signature.parameters) or "nothing"
    return f"{setting}={_shown(value)}; expected one of {kind}'s settings, {names}; remove {setting}"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_paths(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each folder or checkpoint that does not exist."""
    folder = values.get("datamodule.data_dir")
    # eval.py has no `train`: it takes the data from the checkpoint's config
    reads = "train" in values and str(values.get("datamodule._target_")).startswith("src.datamodule.")
    given = reads and not values.get("datamodule.download")
    if given and isinstance(folder, str) and not Path(folder).expanduser().is_dir():
        expected = "expected a folder with a captions file and images"
        yield f"datamodule.data_dir={folder} does not exist; {expected}; {_nearest_folder(folder)}"
    if "predictions" in values and values.get("ckpt_path") is None and values["predictions"] is None:
        yield (
            "ckpt_path is not set; expected a checkpoint to score; set ckpt_path=<run>/checkpoints/best.ckpt, "
            "ckpt_path=last or predictions=<csv>"
        )
    if "train" in values and values.get("ckpt_path") is not None and "paths.log_dir" in values:
        try:
            find_checkpoint(
                str(values["ckpt_path"]), values["paths.log_dir"], values.get("task_name"), which="last"
            )
        except UserError as error:
            yield str(error)


def _nearest_folder(folder: str) -> str:
    """Suggest the folder with the closest name in the nearest parent that exists."""
    path = Path(folder).expanduser().absolute()
    for parent, child in zip(path.parents, [path, *path.parents], strict=False):
        if parent.is_dir():
            names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
            near = difflib.get_close_matches(child.name, names, n=1, cutoff=0.6)
            if near:
                return f"did you mean datamodule.data_dir={parent / near[0]}?"
            break
    return "set datamodule.data_dir=FOLDER"
