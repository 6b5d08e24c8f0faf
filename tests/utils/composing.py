"""Composed configs for tests, as train.py and eval.py get them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from src.utils.run_folder import register_resolvers

ROOT = Path(__file__).resolve().parents[2]


def composed(*overrides: str, name: str = "train", full: bool = False) -> DictConfig:
    """The config of an entry with overrides; full: with the `hydra` node."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(name, list(overrides), return_hydra_config=full)


@contextmanager
def job(folder: Path, *overrides: str, name: str = "train") -> Iterator[DictConfig]:
    """A config inside a job that Hydra runs in `folder`, so that `${hydra:...}` resolves."""
    config = composed(*overrides, f"paths.log_dir={folder}", name=name, full=True)
    before = HydraConfig.instance().cfg
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder)
        config.hydra.runtime.cwd = str(folder)
    HydraConfig.instance().set_config(config)
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        yield task
    finally:
        HydraConfig.instance().cfg = before
