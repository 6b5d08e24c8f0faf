"""Request tags, print and save the config, hide warnings, before a task."""

import sys
import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from src.utils.files import atomic_write
from src.utils.logging import get_logger, rank
from src.utils.run_folder import redact

log = get_logger(__name__)
FIRST = ("datamodule", "model", "callbacks", "logger", "trainer", "paths", "extras")


def apply_extras(config: DictConfig, folder: Path) -> None:
    """Apply `config.extras`: `ignore_warnings`, `enforce_tags`, `print_config`.

    Writes `tags.log` and `config_tree.log` into the run folder.
    """
    extras = config.get("extras")
    if not extras or rank() != 0:
        return
    if extras.get("ignore_warnings"):
        warnings.filterwarnings("ignore")
    if extras.get("enforce_tags"):
        enforce_tags(config, folder)
    if extras.get("print_config"):
        print_config_tree(config, folder)


def enforce_tags(config: DictConfig, folder: Path) -> None:
    """Ask for tags where the config has none and a terminal is there; else tag the run `dev`."""
    if not config.get("tags"):
        answer = _ask() if _is_interactive() else ""
        words = [word.strip() for word in answer.split(",") if word.strip()]
        if not words:
            log.warning("tags are empty; the run is tagged dev; set tags=[WORD,WORD]")
        with open_dict(config):
            config.tags = words or ["dev"]
    with atomic_write(folder / "tags.log") as file:
        file.write("".join(f"{tag}\n" for tag in config.tags))


def _is_interactive() -> bool:
    """Whether there is a terminal, outside of a multirun."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    alone = not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN
    return alone and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _ask() -> str:
    try:
        return input("tags of this run, with commas between them [dev]: ")
    except EOFError:
        return ""


def print_config_tree(config: DictConfig, folder: Path) -> None:
    """Show the config as a tree, groups first, and save it as `config_tree.log`."""
    from rich.console import Console
    from rich.tree import Tree

    names = [name for name in FIRST if name in config]
    tree = Tree("CONFIG", style="dim", guide_style="dim")
    for name in names + [str(name) for name in config if name not in names]:
        tree.add(name).add(_as_text(config, name))
    Console(stderr=True).print(tree)
    with atomic_write(folder / "config_tree.log") as file:
        Console(file=file, width=120).print(tree)


def _as_text(config: DictConfig, name: str) -> Any:
    from rich.syntax import Syntax

    value = config[name]
    plain = redact(OmegaConf.to_container(value, resolve=False)) if OmegaConf.is_config(value) else value
    text = OmegaConf.to_yaml(OmegaConf.create(plain)) if isinstance(plain, dict | list) else str(plain)
    return Syntax(text.strip(), "yaml", background_color="default")
