"""Train, validate and test a CaptionModel with Lightning: steps, logging, optimizer, schedule, checkpoint content."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from transformers import VisionEncoderDecoderModel

from src.datamodule.collate import CaptionBatch
from src.datamodule.processor import Processor
from src.models import checkpoint as files
from src.models.caption_model import CaptionModel
from src.models.freezing import has_block_list
from src.models.loss import FiniteCheck, TokenMean
from src.models.optimization import make_optimizer, make_scheduler
from src.models.scst import SelfCritical
from src.utils.errors import UserError
from src.utils.lightning_compat import load_loader_position
from src.utils.logging import get_logger

log = get_logger(__name__)


class VitGpt2(LightningModule):
    """Any VisionEncoderDecoder checkpoint with its last blocks unfrozen.

    Most settings are those of `CaptionModel` and its `from_base`. optimizer: called by
    `make_optimizer`. lr_scheduler: see `make_scheduler`. objective: cross_entropy, or scst with the settings and reward
    of `SelfCritical`. run_config: plain values, kept in every checkpoint.
    """

    strict_loading = False  # a checkpoint holds the trained weights only; `match_weights` checks them

    def __init__(
        self,
        checkpoint: str | None = None,
        revision: str | None = None,
        from_encoder_decoder: Mapping[str, str] | None = None,
        train: str = "last_blocks",
        num_layers_to_train: int = 1,
        lora: Mapping[str, Any] | None = None,
        image_size: int | None = None,
        generation: Mapping[str, Any] | None = None,
        kernels: str = "auto",
        compile: bool = False,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        encoder_lr_factor: float = 1.0,
        lr_scheduler: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        objective: str = "cross_entropy",
        scst: Mapping[str, Any] | None = None,
        seed: int = 0,
        processor: Processor | None = None,
        reward: Any = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.captioner = CaptionModel.from_base(
            checkpoint, revision, from_encoder_decoder, image_size, seed, processor, generation, train=train,
            num_layers_to_train=num_layers_to_train, lora=lora, kernels=kernels, compile=compile,
            label_smoothing=label_smoothing,
        )  # fmt: skip
        self.processor = self.captioner.processor
        self.seed, self.run_config = seed, dict(run_config or {})
        self.optimizer, self.lr_scheduler, self.encoder_lr_factor = optimizer, lr_scheduler, encoder_lr_factor
        self.scst: SelfCritical | None = None
        if objective == "scst" and scst:
            self.scst = SelfCritical(reward, scst["num_samples"], scst["cross_entropy_weight"])
        self.val_loss_best = float("inf")
        self.train_loss, self.eval_loss = TokenMean(), TokenMean()  # of the epoch so far
        self.finite, self._loss = FiniteCheck(), torch.zeros(())  # loss: of the last batch
        # Of the last test, by image_id, of all processes: captions; loss in nats per token and number of tokens.
        self.test_captions: dict[str, str] = {}
        self.test_losses: dict[str, tuple[float, int]] = {}
        self._window_tokens: Tensor | None = None  # of the batches whose gradients are accumulated so far

    @property
    def model(self) -> VisionEncoderDecoderModel:
        return self.captioner.network

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """The weights that train, by their names in `model`."""
        return self.captioner.trained_weights()

    @torch.no_grad()
    def generate(self, batch: CaptionBatch) -> list[str]:
        """Generate one caption for each of the B images of a batch."""
        return self.captioner.generate(self.captioner.encode(batch))

    def setup(self, stage: str) -> None:
        self.captioner.prepare(self.trainer.strategy.root_device, str(self.trainer.precision))

    def on_fit_start(self) -> None:
        if not has_block_list(self.model.encoder):
            log.info("the encoder has no single list of blocks: no feature cache, pixels are read")

    def on_train_start(self) -> None:
        self.train(self.scst is None)  # Lightning resumes in mid-epoch in eval mode, with the loader at its start
        load_loader_position(self.trainer)
        self.finite = FiniteCheck()

    def on_train_epoch_start(self) -> None:
        self.train(self.scst is None)  # samples have no dropout, and so must their gradient
        self.train_loss = TokenMean()

    def on_train_batch_start(self, batch: CaptionBatch, batch_idx: int) -> None:
        """Seed dropout by seed, epoch, batch and rank alone, so that a resumed run repeats an uninterrupted one."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) % 2**63)

    def training_step(self, batch: CaptionBatch, batch_idx: int) -> Tensor:
        """Loss in nats per token, over the tokens of all processes and of the accumulated batches so far."""
        if self.scst is None:
            nll, tokens = self.captioner(batch)
        else:
            nll, tokens, reward = self.scst.loss(self.captioner, batch)
            shown: dict[str, Any] = {"prog_bar": True, "on_step": True, "on_epoch": True, "sync_dist": True}
            self.log("train/reward", reward, batch_size=len(batch), **shown)
        mean = torch.stack([nll.detach().float(), tokens.float()])
        mean = self.trainer.strategy.reduce(mean, reduce_op="mean")  # as DDP averages gradients
        loss = mean[0] / mean[1]
        self.finite.add("loss", self.global_step, loss, nll, batch.image_ids)
        self._loss = loss
        self.train_loss.update(nll, tokens)
        # Lightning divides by the number of accumulated batches, which their tokens replace.
        return nll * self.trainer.accumulate_grad_batches / self._grow_window(mean[1])

    @torch.no_grad()
    def _grow_window(self, tokens: Tensor) -> Tensor:
        """Count the accumulated batches' tokens and rescale the gradients so far: a window is as one batch."""
        before = self._window_tokens
        self._window_tokens = tokens if before is None else before + tokens
        if before is not None:
            for weight in self.trained_weights().values():
                if weight.grad is not None:
                    weight.grad.mul_(before / self._window_tokens)
        return self._window_tokens

    def on_train_epoch_end(self) -> None:
        self.finite.check()
        self.log("train/loss", self.train_loss.compute(self.trainer))

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the gradients, by norm or by value, also for fused optimizers; log every `log_every_n_steps` steps.

        Under fp16 these get gradients times the loss scale, and so does the limit.
        """
        self._window_tokens = None
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        fused = any(group.get("fused") for group in optimizer.param_groups)
        scale = scaler.get_scale() if scaler is not None and fused else 1.0
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        limit = gradient_clip_val * scale if gradient_clip_val else float("inf")
        by_value = getattr(gradient_clip_algorithm, "value", gradient_clip_algorithm) == "value"
        norm = nn.utils.clip_grad_norm_(weights, float("inf") if by_value else limit) / scale
        if by_value and gradient_clip_val:
            nn.utils.clip_grad_value_(weights, limit)
        if scaler is None:
            self.finite.add("gradient", self.global_step, norm)
        if scaler is None and fused:
            optimizer.found_inf = self.finite.failed  # where it is 1, the step changes nothing
        every = getattr(self.trainer, "log_every_n_steps", None) or 1
        logs = (self.global_step + 1) % every == 0 or self.trainer.is_last_batch
        if logs or not fused:
            self.finite.check()
        if logs:  # on the CPU: the progress bar reads them in every step
            for name, value in (("loss_step", self._loss), ("grad_norm", norm)):
                self.log(f"train/{name}", value.cpu(), prog_bar=name == "loss_step", batch_size=1)

    def configure_optimizers(self) -> Any:
        if self.optimizer is None:
            raise UserError("model.optimizer=null; expected an optimizer to train with; remove the override")
        optimizer = make_optimizer(self.optimizer, self.trained_weights(), self.encoder_lr_factor)
        schedule = self.lr_scheduler and make_scheduler(optimizer, self.lr_scheduler, self.trainer)
        return ([optimizer], [schedule]) if schedule else optimizer

    def on_validation_epoch_start(self) -> None:
        self.finite.check()
        self.eval_loss = TokenMean()

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        if len(batch):
            self.eval_loss.update(*self.captioner(batch))

    def on_validation_epoch_end(self) -> None:
        loss = self.eval_loss.compute(self.trainer)
        self.log("val/loss", loss, prog_bar=True)
        if not self.trainer.sanity_checking:
            self.val_loss_best = min(self.val_loss_best, loss)
            self.log("val/loss_best", self.val_loss_best, prog_bar=True)

    def on_test_epoch_start(self) -> None:
        self.eval_loss, self.test_captions, self.test_losses = TokenMean(), {}, {}

    def test_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        if len(batch):
            states = self.captioner.encode(batch)
            nll, tokens = self.captioner.image_losses(states, batch)  # (B), (B)
            self.eval_loss.update(nll.sum(), tokens.sum())
            losses = zip((nll / tokens).tolist(), tokens.tolist(), strict=True)
            self.test_losses |= zip(batch.image_ids, losses, strict=True)
            self.test_captions |= zip(batch.image_ids, self.captioner.generate(states), strict=True)

    def on_test_epoch_end(self) -> None:
        self.log("test/loss", self.eval_loss.compute(self.trainer))
        for results in (self.test_captions, self.test_losses) if self.trainer.world_size > 1 else ():
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, results)
            for of_process in gathered:
                results.update(of_process)

    def predict_step(self, batch: CaptionBatch, batch_idx: int) -> dict[str, str]:
        """Caption the images of a batch: image_id -> caption."""
        return dict(zip(batch.image_ids, self.generate(batch), strict=True)) if len(batch) else {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained weights alone, under hub names; Lightning adds optimizer, schedule and loops."""
        self.finite.check()
        weights = checkpoint["state_dict"]  # a callback may have put averages there
        names = self.captioner.names
        checkpoint["state_dict"] = {names[n]: weights[f"captioner.network.{n}"] for n in self.trained_weights()}
        checkpoint[files.METADATA_KEY] = {
            "format": files.FORMAT,
            "base": self.captioner.base_id,
            "base_sha256": self.captioner.base_sha256,
            "config": self.run_config,
            "val_loss_best": self.val_loss_best,
            "train_loss": self.train_loss.sync(self.trainer),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = self.match_checkpoint(checkpoint)
        metadata = checkpoint[files.METADATA_KEY]
        self.val_loss_best = metadata["val_loss_best"]
        if self.trainer.is_global_zero:  # the sums of all processes count once
            self.train_loss.sums = torch.tensor(metadata.get("train_loss", [0.0, 0.0]), dtype=torch.float64)

    def match_checkpoint(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        return {f"captioner.{name}": weight for name, weight in self.captioner.match_checkpoint(checkpoint).items()}
