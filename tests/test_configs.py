"""Every YAML file composes into a config without mistakes, and everything that it names can be made."""

import os
from collections import Counter
from pathlib import Path

import optuna
import pytest
import torch
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from src.utils.config_check import find_problems
from tests.utils.composing import ROOT, composed, job

CONFIGS = ROOT / "configs"
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml") if path.parent.name != "local")
COMPLETE = [file for file in FILES if file != Path("datamodule/base.yaml")]  # which has no class of its own
ENTRIES = ("train", "eval")
NEED_AN_ACCOUNT = ("wandb", "mlflow", "neptune", "comet", "aim")
DOWNLOAD = ("datamodule.download=true",)


def overrides_for(file: Path) -> list[str]:
    """The words that bring a file into train.py's config."""
    if file.parent == Path("."):
        return []
    return [f"{file.parent.as_posix()}={file.stem}"]


def compose_file(file: Path, **kwargs) -> DictConfig:
    name = file.stem if file.stem in ENTRIES and file.parent == Path(".") else "train"
    words = overrides_for(file)
    try:
        return composed(*words, name=name, **kwargs)
    except ConfigCompositionException:  # a group that the defaults do not name
        return composed(*[f"+{word}" for word in words], name=name, **kwargs)


def targets(node, prefix=""):
    """Every outermost node with a `_target_`."""
    if isinstance(node, DictConfig) and not node._is_none():
        if "_target_" in node:
            yield prefix, node
        else:
            for name in node:
                yield from targets(node[name], f"{prefix}.{name}" if prefix else str(name))


def test_every_file_is_counted():
    found = {Path(folder, name) for folder, _, names in os.walk(CONFIGS) for name in names}
    yaml = {path.relative_to(CONFIGS) for path in found if path.suffix in (".yaml", ".yml")}
    assert {path for path in yaml if path.parent.name != "local"} == set(FILES)
    assert len(FILES) >= 45
    groups = Counter(file.parent.as_posix() for file in FILES)
    assert groups["logger"] >= 8
    assert groups["trainer"] >= 6
    assert groups["debug"] >= 5
    assert groups["callbacks"] >= 8


@pytest.mark.parametrize("file", FILES, ids=str)
def test_composes_without_mistakes(file, tmp_path):
    config = compose_file(file)
    with open_dict(config):
        config.datamodule.data_dir = str(tmp_path)
        if "predictions" in config:
            config.predictions = "captions.csv"  # one of the two that it may score
    told = find_problems(config)
    if file.parent.name == "logger" and (file.stem in NEED_AN_ACCOUNT or file.stem == "many_loggers"):
        told = [line for line in told if "needs the package" not in line and "NeptuneLogger" not in line]
    assert told == []


def make(node: DictConfig, checkpoint: Path):
    """Instantiate a node, with what this machine lacks replaced: a GPU, the hub."""
    node = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
    kind = node._target_.rpartition(".")[2]
    if kind == "Trainer":
        return instantiate(node, accelerator="cpu", devices=1, precision="32-true", logger=False, max_steps=1)
    if kind == "VitGpt2":
        return instantiate(node, checkpoint=str(checkpoint))
    return instantiate(node)


@pytest.fixture(scope="module")
def make_once(tmp_path_factory, tiny_checkpoint):
    """A folder for all, and `make` that makes what two files have in common once."""
    folder, made = tmp_path_factory.mktemp("jobs"), {}

    def build(node: DictConfig):
        text = OmegaConf.to_yaml(node, resolve=True)
        if text not in made:
            made[text] = make(node, tiny_checkpoint)
        return made[text]

    return folder, build


@pytest.fixture(scope="module")
def groups() -> set[str]:
    """The groups that the defaults of train.yaml name."""
    return set(composed(full=True).hydra.runtime.choices)


@pytest.mark.parametrize("file", COMPLETE, ids=str)
def test_everything_named_can_be_made(file, make_once, groups):
    folder, build = make_once
    words = overrides_for(file)
    name = file.stem if not words and file.stem in ENTRIES else "train"
    if file.parent.parts and file.parent.parts[0] == "hydra":
        words = []
    if words and file.parent.as_posix() not in groups:
        words = [f"+{word}" for word in words]
    with job(folder, *words, name=name) as config:
        made = {
            key: build(node) for key, node in targets(config) if key.partition(".")[2] not in NEED_AN_ACCOUNT
        }
    assert {"datamodule", "model", "trainer"} <= set(made)
    assert made["model"].optimizer is not None
    if file.parent.name == "callbacks" and file.stem not in ("default", "eval", "none"):
        assert f"callbacks.{file.stem}" in made
    if file.parent.name == "logger":
        assert "logger.csv" in made  # always beside the others


def test_optimizer_and_scheduler_are_partials():
    model = composed(*DOWNLOAD).model
    weights = [torch.nn.Parameter(torch.zeros(2))]
    optimizer = instantiate(model.optimizer)(weights)
    scheduler = instantiate(model.lr_scheduler.scheduler)
    assert optimizer.defaults["lr"] == model.optimizer.lr
    assert callable(scheduler)


def test_checkpoints_keep_the_lowest_loss():
    callbacks = composed(*DOWNLOAD).callbacks
    for name in ("model_checkpoint", "early_stopping"):
        assert (callbacks[name].monitor, callbacks[name].mode) == ("val/loss", "min")


@pytest.mark.parametrize("experiment", ["demo", None])
def test_the_search_can_be_made_and_is_kept_in_a_file(tmp_path, experiment):
    """Hydra makes the sweeper before any job is set up, so that `${hydra:...}` has no value."""
    words = ["hparams_search=vit_gpt2_optuna", f"paths.log_dir={tmp_path}/logs"]
    config = composed(*words, *([f"experiment={experiment}"] if experiment else []), full=True)
    sweeper = config.hydra.sweeper
    assert sweeper.study_name == f"vit_gpt2_{experiment}"
    assert sweeper.storage.url == f"sqlite:///{tmp_path}/logs/optuna.db"
    instantiate(sweeper)
    study = optuna.create_study(storage=instantiate(sweeper.storage), study_name="a")
    trial = study.ask()
    study.tell(trial, 1.5)
    again = optuna.load_study(storage=instantiate(sweeper.storage), study_name="a")
    assert [trial.value for trial in again.trials] == [1.5]


@pytest.mark.parametrize("option", ["datamodule=medicat", "trainer=cpu", "logger=none", "debug=fdr"])
def test_options_work_with_and_without_their_ending(option):
    assert composed(option) == composed(f"{option}.yaml")
