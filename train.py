"""Fine-tune a captioner: `python train.py datamodule=flickr.yaml`; `--help` lists the settings."""

import hydra
import pyrootutils
from omegaconf import DictConfig

pyrootutils.setup_root(__file__, indicator="pyproject.toml", pythonpath=True, dotenv=True)

from src.utils.entry import optimized_value, run_entry


@hydra.main(version_base="1.3", config_path="configs", config_name="train.yaml")
def main(config: DictConfig) -> float | None:
    """Train, test and report; return the metric that a hyperparameter search optimizes."""
    from src.utils.task_run import task_run

    with task_run(config):
        from src.tasks.train import train

        metrics = train(config)
    return optimized_value(metrics, config.get("optimized_metric"))


if __name__ == "__main__":
    run_entry(main)
