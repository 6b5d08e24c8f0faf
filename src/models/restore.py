"""From a run folder or a `.ckpt` back to a model, with nothing else given."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.models.checkpoints import KEY, read_checkpoint
from src.models.vit_gpt2 import VitGpt2
from src.utils.run_folder import find_checkpoint


def restore(checkpoint: str | Path) -> VitGpt2:
    """The module of a training run with its trained weights, in eval mode, on the CPU.

    Raises:
        UserError: no such file, or one that does not fit its base.
    """
    path = find_checkpoint(str(checkpoint), "logs")
    assert path is not None
    content = read_checkpoint(path)
    module: VitGpt2 = instantiate(OmegaConf.create(content[KEY]["config"]["model"]))
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"], strict=False)
    return module.eval()


def image_processor_of(module: VitGpt2) -> Any:
    """The image processor of the base that a module was made from."""
    from transformers import AutoImageProcessor

    source, _, revision = module.base_id.split(" + ")[0].partition("@")
    return AutoImageProcessor.from_pretrained(source, revision=revision or None)
