"""Score a captioner: `python eval.py ckpt_path=logs/train/runs/<run>/checkpoints/best.ckpt`."""

import hydra
import pyrootutils
from omegaconf import DictConfig

pyrootutils.setup_root(__file__, indicator="pyproject.toml", pythonpath=True, dotenv=True)

from src.utils.entry import run_entry


@hydra.main(version_base="1.3", config_path="configs", config_name="eval.yaml")
def main(config: DictConfig) -> None:
    """Score a checkpoint on its test images beside its untouched base, or a predictions file alone."""
    from src.utils.task_run import task_run

    with task_run(config):
        from src.tasks.eval import evaluate_checkpoint

        evaluate_checkpoint(config)


if __name__ == "__main__":
    run_entry(main)
