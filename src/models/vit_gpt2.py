"""Train, validate and test a CaptionModel with Lightning: steps, logging, optimizer, schedule, checkpoint content."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from transformers import VisionEncoderDecoderModel

from src.datamodule.collate import CaptionBatch
from src.datamodule.processor import Processor
from src.models.backbone import has_block_list
from src.models.caption_model import CaptionModel
from src.models.checkpoint import (
    FORMAT,
    METADATA_KEY,
    check_base,
    combine_digests,
    hub_parameter_names,
    match_names,
    weight_digests,
)
from src.models.lora import adapted_names
from src.models.optimization import make_scheduler, parameter_groups
from src.models.pretrained import is_pooler, load_captioner
from src.models.token_mean import TokenMean
from src.utils.errors import UserError
from src.utils.lightning_compat import load_loader_position
from src.utils.logging import get_logger

log = get_logger(__name__)


class VitGpt2(LightningModule):
    """Any VisionEncoderDecoder checkpoint with its last blocks unfrozen.

    checkpoint, revision, from_encoder_decoder: see `load_captioner`. processor: of the checkpoint; None loads it.
    train, num_layers_to_train, lora, max_length, num_beams, kernels, compile: see `CaptionModel`.
    optimizer: called with parameter groups. lr_scheduler: {"scheduler": called with the optimizer and the
    number of changes in the run, "interval", "frequency", "monitor"}, or None.
    seed: of dropout and of newly initialized weights. run_config: plain values, kept in every checkpoint.
    """

    strict_loading = False  # a checkpoint holds the trained weights only; `match_names` checks them

    def __init__(
        self,
        checkpoint: str | None = None,
        revision: str | None = None,
        from_encoder_decoder: Mapping[str, str] | None = None,
        train: str = "last_blocks",
        num_layers_to_train: int = 1,
        lora: Mapping[str, Any] | None = None,
        max_length: int | None = None,
        num_beams: int = 4,
        kernels: str = "auto",
        compile: bool = False,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        lr_scheduler: Mapping[str, Any] | None = None,
        seed: int = 0,
        processor: Processor | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        pretrained = load_captioner(checkpoint, revision, from_encoder_decoder, seed or 0, processor)
        network, new_weights = pretrained.model, pretrained.new_weights
        self.base_id, self.seed, self.run_config = pretrained.base_id, seed, dict(run_config or {})
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        names = hub_parameter_names(network)
        self.digests = weight_digests(network, names)
        unsaved = {names[name] for name in names if name in new_weights or is_pooler(name)}
        self.base_sha256 = combine_digests(self.digests, self.digests.keys() - unsaved)
        self.captioner = CaptionModel(
            network, pretrained.processor, train, num_layers_to_train, lora, new_weights,
            max_length, num_beams, kernels, compile,
        )  # fmt: skip
        self.names = adapted_names(network, names) if train == "lora" else names
        self.val_loss_best = float("inf")
        self.train_loss, self.eval_loss = TokenMean(), TokenMean()  # of the epoch so far
        self.test_captions: dict[str, str] = {}  # of the last test, by image_id, of all processes
        self._kernels = ""  # the line that was logged
        self._window_tokens: Tensor | None = None  # of the batches whose gradients are accumulated so far

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, **settings: Any
    ) -> "VitGpt2":
        """Rebuild the module of a run folder or `.ckpt` with its trained weights, in eval mode.

        map_location: the device, None for the CPU. settings: arguments that replace those of the run.

        Raises:
            UserError: no such file, damaged, or the base weights are missing or others.
        """
        from src.models.restore import restore

        return restore(checkpoint_path, **settings).to(map_location or "cpu")

    @property
    def model(self) -> VisionEncoderDecoderModel:
        """transformers' model."""
        return self.captioner.network

    @property
    def processor(self) -> Processor:
        """Tokenizer, special ids and image transform."""
        return self.captioner.processor

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """The weights that train, by their names in `model`."""
        return self.captioner.trained_weights()

    def backbone_fingerprint(self) -> str:
        """Changes with any weight of the backbone, with where it ends and with the processing of pixels."""
        trained = {self.names[name] for name in self.trained_weights()}
        encoder = {name for name in self.digests if name.startswith("encoder.") and not is_pooler(name)}
        weights = combine_digests(self.digests, encoder - trained)[:32]
        return f"{weights}-{self.captioner.depth}-{self.processor.image.fingerprint()}"

    def sum_nll_and_num_tokens(self, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy in nats, f32 (), and the number of tokens that it sums over, i64 ()."""
        return self.captioner(batch)

    def generate(self, batch: CaptionBatch) -> list[str]:
        """Generate one caption for each of the B images of a batch."""
        with torch.no_grad():
            return self.captioner.generate(self.captioner.encode(batch))

    # --- training -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Choose the kernels for the trainer's device and log them."""
        line = self.captioner.prepare(self.trainer.strategy.root_device)
        if line != self._kernels:
            log.info(line)
        self._kernels = line

    def on_fit_start(self) -> None:
        """Log what trains."""
        weights = self.trained_weights()
        trained, encoder, decoder = (
            f"{sum(weight.numel() for name, weight in weights.items() if name.startswith(side)):,}"
            for side in ("", "encoder", "decoder")
        )
        total = f"{sum(weight.numel() for weight in self.model.parameters()):,}"
        log.info(
            f"training {trained} of {total} weights (encoder {encoder}, decoder {decoder}), others are frozen"
        )
        if not has_block_list(self.model.encoder):
            kind = type(self.model.encoder).__name__
            log.info("%s has no single list of blocks: no feature cache, pixels are read", kind)

    def on_train_start(self) -> None:
        """Undo what Lightning does to a run that is resumed in mid-epoch: eval mode, the loader at its start.

        The loader was made to count the schedule's steps, before its position was read from the checkpoint.
        """
        self.train()
        load_loader_position(self.trainer)

    def on_train_epoch_start(self) -> None:
        self.train()
        self.train_loss = TokenMean()

    def on_train_batch_start(self, batch: CaptionBatch, batch_idx: int) -> None:
        """Seed dropout by seed, epoch, batch and rank alone, so that a resumed run repeats an uninterrupted one."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) % 2**63)

    def training_step(self, batch: CaptionBatch, batch_idx: int) -> Tensor:
        """Loss in nats per token, over the tokens of all processes and of the accumulated batches so far.

        Raises:
            UserError: the loss is not finite in one of them; the weights were not changed.
        """
        nll, tokens = self.sum_nll_and_num_tokens(batch)
        mean = torch.stack([nll.detach().float(), tokens.float()])
        mean = self.trainer.strategy.reduce(mean, reduce_op="mean")  # as DDP averages gradients
        loss = mean[0] / mean[1]
        if not torch.isfinite(loss):
            names = ", ".join(batch.image_ids) if not torch.isfinite(nll) else "of another process"
            raise UserError(
                f"the loss of step {self.global_step} is {loss.item()} on the images {names}; "
                "expected a finite number; the weights were not changed: look at these images, or lower "
                "model.optimizer.lr, or set trainer.precision=32-true, and resume with ckpt_path=last"
            )
        self.log("train/loss_step", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=1)
        self.train_loss.update(nll, tokens)
        return nll * self.trainer.accumulate_grad_batches / self._grow_window(mean[1])

    @torch.no_grad()
    def _grow_window(self, tokens: Tensor) -> Tensor:
        """Tokens of the accumulated batches, mean over processes; rescales the gradients so far to their sum.

        A window of batches thus has the gradient of one batch with all their images. Lightning divides each loss by
        the number of batches of a window, which `training_step` makes up for.
        """
        before = self._window_tokens
        self._window_tokens = tokens if before is None else before + tokens
        if before is not None:
            for weight in self.trained_weights().values():
                if weight.grad is not None:
                    weight.grad.mul_(before / self._window_tokens)
        return self._window_tokens

    def on_train_epoch_end(self) -> None:
        """Log the mean over the epoch's tokens, also of an epoch that was resumed in its middle."""
        self.log("train/loss", self.train_loss.compute(self.trainer))

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:  # fmt: skip
        """Log the norm of all gradients and clip them, by norm or by value; Lightning calls it before each step.

        Lightning's own clipping refuses fused optimizers. Under fp16 these get gradients times the loss scale, which
        they undo themselves: so the limit is multiplied by it too.

        Raises:
            UserError: a gradient is not finite; the weights were not changed. (fp16 skips such a step instead.)
        """
        self._window_tokens = None
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        fused = any(group.get("fused") for group in optimizer.param_groups)
        scale = scaler.get_scale() if scaler is not None and fused else 1.0
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        limit = gradient_clip_val * scale if gradient_clip_val else float("inf")
        by_value = str(getattr(gradient_clip_algorithm, "value", gradient_clip_algorithm)) == "value"
        norm = nn.utils.clip_grad_norm_(weights, float("inf") if by_value else limit) / scale
        if scaler is None and not torch.isfinite(norm):
            raise UserError(
                f"the gradient of step {self.global_step} is {norm.item()}; expected a finite number; the weights "
                "were not changed: lower model.optimizer.lr or set trainer.precision=32-true, and resume with "
                "ckpt_path=last"
            )
        if by_value and gradient_clip_val:
            nn.utils.clip_grad_value_(weights, limit)
        self.log("train/grad_norm", norm, on_step=True, on_epoch=False)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and, if there is one, the schedule.

        Raises:
            UserError: no optimizer, or a schedule without an end.
        """
        if self.optimizer is None:
            raise UserError("model.optimizer=null; expected an optimizer to train with; remove the override")
        optimizer = self.optimizer(parameter_groups(self.parameters()))
        if not self.lr_scheduler:
            return optimizer
        return [optimizer], [make_scheduler(optimizer, self.lr_scheduler, self.trainer)]

    # --- validation, test, prediction -----------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self.eval_loss = TokenMean()

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        """Add the batch to the mean loss."""
        if len(batch):
            self.eval_loss.update(*self.sum_nll_and_num_tokens(batch))

    def on_validation_epoch_end(self) -> None:
        loss = self.eval_loss.compute(self.trainer)
        self.log("val/loss", loss, prog_bar=True)
        if not self.trainer.sanity_checking:
            self.val_loss_best = min(self.val_loss_best, loss)
            self.log("val/loss_best", self.val_loss_best, prog_bar=True)

    def on_test_epoch_start(self) -> None:
        self.eval_loss, self.test_captions = TokenMean(), {}

    def test_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        """Add the batch to the mean loss and caption its images."""
        if len(batch):
            states = self.captioner.encode(batch)
            self.eval_loss.update(*self.captioner.loss(states, batch))
            self.test_captions |= zip(batch.image_ids, self.captioner.generate(states), strict=True)

    def on_test_epoch_end(self) -> None:
        """Log the loss and gather the captions of all processes."""
        self.log("test/loss", self.eval_loss.compute(self.trainer))
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, self.test_captions)
            self.test_captions = {name: text for captions in gathered for name, text in captions.items()}

    def predict_step(self, batch: CaptionBatch, batch_idx: int) -> dict[str, str]:
        """Caption the images of a batch: image_id -> caption."""
        return dict(zip(batch.image_ids, self.generate(batch), strict=True)) if len(batch) else {}

    # --- checkpoints ----------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained weights only, by hub name, with the base's id and hash and the config."""
        checkpoint["state_dict"] = {self.names[n]: w.detach() for n, w in self.trained_weights().items()}
        checkpoint[METADATA_KEY] = {
            "format": FORMAT,
            "base": self.base_id,
            "base_sha256": self.base_sha256,
            "config": self.run_config,
            "val_loss_best": self.val_loss_best,
            "train_loss": self.train_loss.sync(self._trainer),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Turn hub names back into this release's module names.

        Raises:
            UserError: other base weights, or other weights than those that train here.
        """
        check_base(checkpoint[METADATA_KEY], self.base_id, self.base_sha256)
        weights = match_names(checkpoint["state_dict"], self.names, self.trained_weights())
        checkpoint["state_dict"] = {f"captioner.network.{name}": weight for name, weight in weights.items()}
        self.val_loss_best = checkpoint[METADATA_KEY]["val_loss_best"]
        self.train_loss.load(checkpoint[METADATA_KEY].get("train_loss", [0.0, 0.0]), self._trainer)
