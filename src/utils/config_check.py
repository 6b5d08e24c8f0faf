"""All mistakes of a config at once, before anything slow is imported."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.utils.config_rules import broken_rules, contradictions
from src.utils.errors import ConfigErrors, UserError
from src.utils.run_folder import find_checkpoint
from src.utils.signatures import Signature, is_missing, read_signature
from src.utils.value_types import misfit

FOR_HYDRA = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
NEEDS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "CometLogger": "comet_ml"}
NEPTUNE_IS_GONE = (
    "logger=neptune; expected a service that exists, Neptune closed and Lightning 2.6 dropped its logger; "
    "set logger=tensorboard"
)
READERS = ("src.datamodule.flickr.FlickrDataModule", "src.datamodule.medicat.MedicatDataModule")


def check_config(config: DictConfig) -> None:
    """Look at a composed config without importing what its `_target_`s name.

    Raises:
        ConfigErrors: a key that its class does not take, a value of the wrong type or out of range, settings
            that contradict each other, a package, a folder or a checkpoint that is not there.
    """
    problems = find_problems(config)
    if problems:
        raise ConfigErrors(problems)


def find_problems(config: DictConfig) -> list[str]:
    """One line for each mistake: key=found; expected; what to do."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    problems: list[str] = []
    values = dict(_plain(own, "", problems))
    for key, node in _nodes(own, ""):
        problems += _about_target(key, node, values)
    problems += broken_rules(values)
    problems += contradictions(values)
    problems += _about_paths(values)
    return list(dict.fromkeys(problems))


def _plain(node: Any, prefix: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Every key, dotted, with its plain value; values that cannot be known yet are left out."""
    for name in map(str, node):
        key = f"{prefix}{name}"
        if OmegaConf.is_missing(node, name):
            problems.append(f"{key}=???; expected a value; set {key}")
            continue
        try:
            value = node[name]
        except OmegaConfBaseException as error:
            raw = OmegaConf.to_container(node, resolve=False)[name]  # type: ignore[index, call-overload]
            if "hydra:" not in str(raw) and "paths." not in str(raw):  # known only while a job runs
                problems.append(f"{key}={raw}; {' '.join(str(error).split())}")
            continue
        if isinstance(value, DictConfig):
            yield key, None if value._is_none() else {}
            yield from _plain(value, f"{key}.", problems)
        elif isinstance(value, ListConfig):
            yield key, _list(value)
        else:
            yield key, value


def _list(value: ListConfig) -> Any:
    try:
        return OmegaConf.to_container(value, resolve=True)
    except OmegaConfBaseException:
        return []


def _nodes(node: DictConfig, prefix: str) -> Iterator[tuple[str, DictConfig]]:
    """Every node with a `_target_`, with its dotted key."""
    if node._is_none():
        return
    if "_target_" in node:
        yield prefix, node
    for name in map(str, node):
        unknown = OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name)
        child = None if unknown else node[name]
        if isinstance(child, DictConfig):
            yield from _nodes(child, f"{prefix}.{name}" if prefix else name)


def _about_target(key: str, node: DictConfig, values: Mapping[str, Any]) -> Iterator[str]:
    target = str(node["_target_"])
    if target.endswith(".NeptuneLogger"):
        yield NEPTUNE_IS_GONE
        return
    missing = is_missing(NEEDS.get(target.rpartition(".")[2], target))
    if missing:
        yield _about_missing(key, target, missing)
    signature = read_signature(target)
    if signature is None:
        return
    for name in map(str, node):
        if name in FOR_HYDRA or f"{key}.{name}" not in values:
            continue
        value = values[f"{key}.{name}"]
        if name not in signature.parameters:
            if not signature.open:
                yield _about_unknown(key, name, value, target, signature)
        else:
            expected = misfit(value, signature.parameters[name])
            # an object's type is not known here, and ${key} is wrong where that key is, which is told there
            if expected and not _is_object(node, name) and not OmegaConf.is_interpolation(node, name):
                yield f"{key}.{name}={_shown(value)}; expected {expected}; set {key}.{name}"


def _is_object(node: DictConfig, name: str) -> bool:
    """Whether the value is itself something to instantiate, whose type is not known here."""
    child = node._get_node(name)
    return isinstance(child, DictConfig) and not child._is_none() and "_target_" in child


def _about_missing(key: str, target: str, missing: str) -> str:
    if missing == target:
        return f"{key}._target_={target}; expected a class or function that exists; mend the name"
    group, _, name = key.rpartition(".")
    chosen = f"{group}={name}" if group else f"{key}._target_={target}"
    return f"{chosen} needs the package {missing}; expected it to be installed; pip install {missing}"


def _about_unknown(key: str, name: str, value: Any, target: str, signature: Signature) -> str:
    near = difflib.get_close_matches(name, list(signature.parameters), n=1)
    kind = target.rpartition(".")[2]
    if near:
        hint = f"did you mean {key}.{near[0]}?"
        return f"{key}.{name}={_shown(value)}; expected a setting of {kind}; {hint}"
    names, hint = ", ".join(signature.parameters) or "nothing", f"take {key}.{name} out"
    return f"{key}.{name}={_shown(value)}; expected one of {kind}'s settings, {names}; {hint}"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _about_paths(values: Mapping[str, Any]) -> Iterator[str]:
    """Folders and checkpoints that are not there."""
    folder = values.get("datamodule.data_dir")
    # eval.py has no `train`: it takes the data from the checkpoint's config
    reads = "train" in values and values.get("datamodule._target_") in READERS
    if reads and isinstance(folder, str) and not values.get("datamodule.download") and not _is_folder(folder):
        expected = "expected a folder with a captions file and images"
        yield f"datamodule.data_dir={folder} does not exist; {expected}; {_beside(folder)}"
    if "predictions" in values and values.get("ckpt_path") is None and values["predictions"] is None:
        yield (
            "ckpt_path is not set; expected a checkpoint to score; set ckpt_path=<run>/checkpoints/best.ckpt, "
            "ckpt_path=last or predictions=<csv>"
        )
    if values.get("ckpt_path") is not None and "paths.log_dir" in values:
        try:
            find_checkpoint(str(values["ckpt_path"]), values["paths.log_dir"])
        except UserError as error:
            yield str(error)


def _beside(folder: str) -> str:
    """What to set instead: the folder with the likest name in the nearest parent that exists."""
    path = Path(folder).expanduser().absolute()
    while not path.parent.is_dir():
        path = path.parent
    names = [child.name for child in path.parent.iterdir() if child.is_dir()]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean datamodule.data_dir={path.parent / near[0]}?"
    return "set datamodule.data_dir=FOLDER"


def _is_folder(path: str) -> bool:
    return Path(path).expanduser().is_dir()
