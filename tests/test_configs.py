"""Every YAML file composes into a config without mistakes, and everything that it names can be built."""

from itertools import zip_longest
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from src.utils.config_check import find_problems
from tests.utils.composing import ROOT, composed, job

CONFIGS = ROOT / "configs"
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.y*ml") if path.parent.name != "local")
NEED_AN_ACCOUNT = ("wandb", "mlflow", "neptune", "comet", "aim")


DEFAULTS = OmegaConf.load(CONFIGS / "train.yaml").defaults
GROUPS = {str(next(iter(one))).removeprefix("optional ") for one in DEFAULTS if isinstance(one, DictConfig)}


# Options of these groups are composed together, one of each at a time; every other file by itself.
INDEPENDENT = ("callbacks", "datamodule", "logger", "metrics", "model", "trainer")
TOGETHER = zip_longest(*([file for file in FILES if file.parent.as_posix() == group] for group in INDEPENDENT))
CASES = [tuple(filter(None, files)) for files in TOGETHER]
CASES += [(file,) for file in FILES if file.parent.as_posix() not in INDEPENDENT]


def override(file: Path) -> str:
    """Return the override that brings a file into the config."""
    group = file.parent.as_posix()
    return f"{'' if group in GROUPS or group.startswith('hydra') else '+'}{group}={file.stem}"


@pytest.fixture(scope="module")
def build_once(tmp_path_factory, tiny_checkpoint):
    """Return a folder for all, and a function that builds what two files have in common once.

    What this machine lacks is replaced: a GPU, the hub and a model of its depth.
    """
    folder, built = tmp_path_factory.mktemp("jobs"), {}
    replaced = {
        "Trainer": {"accelerator": "cpu", "devices": 1, "precision": "32-true", "logger": False, "max_steps": 1},
        "VitGpt2": {"checkpoint": str(tiny_checkpoint), "num_layers_to_train": 1},  # it has three
    }

    def build(node: DictConfig):
        text = OmegaConf.to_yaml(node, resolve=True)
        if text not in built:
            built[text] = instantiate(OmegaConf.create(text), **replaced.get(node._target_.rpartition(".")[2], {}))
        return built[text]

    return folder, build


def targets(node, prefix=""):
    """Yield every outermost node with a `_target_`."""
    if isinstance(node, DictConfig) and not node._is_none():
        if "_target_" in node:
            yield prefix, node
        else:
            for name in node:
                yield from targets(node[name], f"{prefix}.{name}" if prefix else str(name))


@pytest.mark.parametrize("files", CASES, ids=lambda files: " ".join(map(str, files)))
def test_files_have_no_mistakes_and_all_that_they_name_can_be_built(files, build_once):
    folder, build = build_once
    name = files[0].stem if files[0].parent == Path() else "train"
    overrides = [override(file) for file in files if file.parent != Path() and file.stem != "base"]
    if files[0].parts[0] == "hydra":
        composed(*overrides)
        return
    with job(folder, *overrides, name=name) as config:
        with open_dict(config):
            if "data_dir" in list(config.datamodule):  # also where it is missing
                config.datamodule.data_dir = str(folder)
            if "dataset" in list(config.datamodule):
                config.datamodule.dataset = str(folder)
            if "predictions" in config:
                config.predictions = "captions.csv"  # one of the two that it may score
        problems = [line for line in find_problems(config) if "needs the package" not in line and "Neptune" not in line]
        built = {key: build(node) for key, node in targets(config) if key.partition(".")[2] not in NEED_AN_ACCOUNT}
    assert problems == []
    assert {"datamodule", "model", "trainer"} <= set(built)
    assert built["model"].optimizer is not None
    for file in files:
        if file.parent.name == "callbacks" and file.stem not in ("default", "eval", "none"):
            assert f"callbacks.{file.stem}" in built
        if file.parent.name == "logger":
            assert "logger.csv" in built  # always beside the others


def test_optimizer_and_scheduler_are_partials_and_checkpoints_keep_the_lowest_loss():
    config = composed()
    optimizer = instantiate(config.model.optimizer)([torch.nn.Parameter(torch.zeros(2))])
    assert optimizer.defaults["lr"] == config.model.optimizer.lr
    assert callable(instantiate(config.model.lr_scheduler.scheduler))
    for name in ("model_checkpoint", "early_stopping"):
        assert (config.callbacks[name].monitor, config.callbacks[name].mode) == ("val/loss", "min")


def test_effort_stands_above_an_experiment_and_below_single_settings():
    config = composed("experiment=demo", "effort=best", "trainer.max_epochs=3")
    found = config.model.num_layers_to_train, config.callbacks.feature_cache.views, config.trainer.max_epochs
    best = OmegaConf.load(CONFIGS / "effort" / "best.yaml")
    assert found == (best.model.num_layers_to_train, best.callbacks.feature_cache.views, 3)
    assert find_problems(composed("effort=best", "debug=fdr")) == []  # no callbacks there


@pytest.mark.parametrize("experiment", ["demo", None])
def test_the_search_can_be_built_and_is_kept_in_a_file(tmp_path, experiment):
    """Hydra makes the sweeper before any job is set up, so that `${hydra:...}` has no value."""
    overrides = ["hparams_search=vit_gpt2_optuna", f"paths.log_dir={tmp_path}/logs"]
    import optuna

    config = composed(*overrides, *([f"experiment={experiment}"] if experiment else []), full=True)
    sweeper = config.hydra.sweeper
    assert sweeper.study_name == f"vit_gpt2_{experiment}"
    assert sweeper.storage.url == f"sqlite:///{tmp_path}/logs/optuna.db"
    instantiate(sweeper)
    study = optuna.create_study(storage=instantiate(sweeper.storage), study_name="a")
    study.tell(study.ask(), 1.5)
    again = optuna.load_study(storage=instantiate(sweeper.storage), study_name="a")
    assert [trial.value for trial in again.trials] == [1.5]
