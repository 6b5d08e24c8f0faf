"""Steps 5 to 7 of the data path as a LightningModule: encode, loss in nats per token, captions.

B images, T packed tokens of an image, P patches + class token, D width.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from src.datamodule.collate import CaptionBatch
from src.models.backbone import FrozenBackbone, frozen_blocks, split_encoder, strip_pooler
from src.models.checkpoint import (
    FORMAT,
    METADATA_KEY,
    check_base,
    combine_digests,
    hub_parameter_names,
    match_names,
    weight_digests,
)
from src.models.freezing import choose_trainable, find_blocks
from src.models.generation import generate_captions
from src.models.kernels.attention import use_math_attention
from src.models.lora import adapted_names, add_lora, lora_settings, resolve_train_mode
from src.models.loss import packed_loss
from src.models.optimization import parameter_groups
from src.models.pretrained import is_pooler, load_captioner
from src.models.token_mean import TokenMean
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
DEFAULT_LENGTH = 32  # tokens of a generated caption, start token included


class VitGpt2(LightningModule):
    """Any VisionEncoderDecoder checkpoint with its last blocks unfrozen.

    checkpoint, revision, from_encoder_decoder: see `load_captioner`.
    train, num_layers_to_train: see `choose_trainable`. adapter="lora" is train="lora"; lora: see `LoraSettings`.
    max_length: tokens of a generated caption, start included; None takes the data set's, else 32.
    num_beams: beams of the search, 1 is greedy.
    compile: let torch.compile fuse each block of the encoder.
    optimizer: called with parameter groups. lr_scheduler: {"scheduler": called with the optimizer and the
    total of optimizer steps, "interval", "frequency", "monitor"}, or None.
    """

    strict_loading = False  # a checkpoint holds the trained weights only; `match_names` checks them

    def __init__(
        self,
        checkpoint: str | None = None,
        revision: str | None = None,
        from_encoder_decoder: Mapping[str, str] | None = None,
        train: str = "last_blocks",
        num_layers_to_train: int = 1,
        adapter: str | None = None,
        lora: Mapping[str, Any] | None = None,
        max_length: int | None = None,
        num_beams: int = 4,
        compile: bool = False,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        lr_scheduler: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        train, settings = resolve_train_mode(train, adapter), lora_settings(lora)
        pretrained = load_captioner(checkpoint, revision, from_encoder_decoder, seed or 0)
        self.model, self.preprocessing = pretrained.model, pretrained.processor
        use_math_attention(self.model.encoder)
        self.base_id = pretrained.base_id
        self.names = hub_parameter_names(self.model)
        self.digests = weight_digests(self.model, self.names)
        unsaved = {
            self.names[name] for name in self.names if name in pretrained.new_weights or is_pooler(name)
        }
        self.base_sha256 = combine_digests(self.digests, self.digests.keys() - unsaved)
        self.max_length, self.num_beams, self.seed = max_length, num_beams, seed
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.run_config: dict[str, Any] = {}  # the whole config as plain values; stands in every checkpoint
        self.val_loss_best = float("inf")
        self.train_loss, self.eval_loss = TokenMean(), TokenMean()  # of the epoch so far
        self.captions: dict[str, str] | None = None  # filled by test_step while not None

        self.trained_modules = [
            choose_trainable(self.model, train, num_layers_to_train, pretrained.new_weights)
        ]
        if train == "lora":
            self.trained_modules[0] += add_lora(self.model, settings, pretrained.new_weights)
            self.names = adapted_names(self.model, self.names)
        image = self.preprocessing.image
        parts = split_encoder(self.model.encoder, (image.height, image.width))
        whole = strip_pooler(self.model.encoder)
        if compile:
            for block in find_blocks(self.model.encoder):  # one graph serves all of them
                block.compile()
        self._parts = (parts, whole)  # in a tuple, so that torch does not register the shared weights twice
        self._base = {name: weight.detach().clone() for name, weight in self.trained_weights().items()}

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """The weights that train, by module name inside `self.model`."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def train(self, mode: bool = True) -> "VitGpt2":
        """Modules that train follow `mode`; frozen ones stay in eval mode, their dropout asleep."""
        super().train(False)
        self.training = mode
        for module in self.trained_modules[0]:
            module.train(mode)
        return self

    # --- encode ---------------------------------------------------------------------------------------------

    @property
    def backbone(self) -> FrozenBackbone | None:
        """The frozen blocks whose output can be kept; None where the encoder has none at its beginning."""
        return self._parts[0] and self._parts[0][0]

    def backbone_features(self, pixel_values: Tensor) -> Tensor:
        """Pixels f32 (B,3,H,W) to the frozen backbone's output (B,P,D)."""
        assert self.backbone is not None
        return self.backbone(pixel_values)

    def backbone_fingerprint(self) -> str:
        """Changes with any weight of the backbone, with where it ends and with the preprocessing of pixels."""
        trained = {self.names[name] for name in self.trained_weights()}
        encoder = {name for name in self.digests if name.startswith("encoder.") and not is_pooler(name)}
        weights = combine_digests(self.digests, encoder - trained)[:32]
        return f"{weights}-{frozen_blocks(self.model.encoder)}-{self.preprocessing.image.fingerprint()}"

    def encode(self, batch: CaptionBatch) -> Tensor:
        """Encoder states (B,P,D) of a batch of pixels or of cached features."""
        parts, whole = self._parts
        if parts is None:
            return whole(batch.pixel_values).last_hidden_state
        backbone, head = parts
        return head(backbone(batch.pixel_values) if batch.features is None else batch.features)

    # --- steps ----------------------------------------------------------------------------------------------

    def sum_nll_and_num_tokens(self, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy in nats, f32 (), and the number of tokens that it sums over, i64 ()."""
        return packed_loss(self.model, self.encode(batch), batch)

    def on_fit_start(self) -> None:
        """Print what trains."""
        trained = self.trained_weights()
        count = {
            half: sum(w.numel() for n, w in trained.items() if n.startswith(half))
            for half in ("encoder", "decoder")
        }
        total = sum(weight.numel() for weight in trained.values())
        log.info(
            "training %s of %s weights (encoder %s, decoder %s), the others are frozen",
            *(f"{n:,}" for n in (total, sum(p.numel() for p in self.model.parameters()), *count.values())),
        )

    def on_train_start(self) -> None:
        """What Lightning leaves out of a run that is resumed in mid-epoch: dropout awake, the loader at its place.

        The loader was made to count the schedule's steps, before its place was read from the checkpoint.
        """
        self.train()
        self.trainer.fit_loop._load_combined_loader_states()

    def on_train_epoch_start(self) -> None:
        self.train()
        self.train_loss = TokenMean()

    def on_train_batch_start(self, batch: CaptionBatch, batch_idx: int) -> None:
        """Dropout depends on seed, epoch, batch and rank alone: a resumed run draws what an unbroken one does."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) % 2**63)

    def training_step(self, batch: CaptionBatch, batch_idx: int) -> Tensor:
        """Loss in nats per token, over the tokens of all processes.

        Raises:
            UserError: the loss is not finite in one of them; the optimizer has not moved.
        """
        nats, tokens = self.sum_nll_and_num_tokens(batch)
        mean = torch.stack([nats.detach().float(), tokens.float()])
        mean = self.trainer.strategy.reduce(mean, reduce_op="mean")  # as DDP averages gradients
        loss = mean[0] / mean[1]
        if not torch.isfinite(loss):
            names = ", ".join(batch.image_ids) if not torch.isfinite(nats) else "of another process"
            raise UserError(
                f"the loss of step {self.global_step} is {loss.item()} on the images {names}; "
                "expected a finite number; the weights were not changed: look at these images, or lower "
                "model.optimizer.lr, or set trainer.precision=32-true, and go on with ckpt_path=last"
            )
        self.log("train/loss_step", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=1)
        self.train_loss.add(nats.detach(), tokens)
        return nats / mean[1]

    def on_train_epoch_end(self) -> None:
        """Log the mean over the epoch's tokens, also where the epoch was resumed in its middle."""
        self.log("train/loss", self.train_loss.value(self.trainer))

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:  # fmt: skip
        """Log the norm of all gradients and clip it: Lightning's own clipping refuses fused optimizers.

        There is no loss scaling in bf16 or fp32, so the gradients are as they are.
        """
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(weights, gradient_clip_val or float("inf"))
        self.log("train/grad_norm", norm, on_step=True, on_epoch=False)

    def on_validation_epoch_start(self) -> None:
        self.eval_loss = TokenMean()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        """Add nats and tokens of the batch."""
        if len(batch):
            self.eval_loss.add(*self.sum_nll_and_num_tokens(batch))

    def on_validation_epoch_end(self) -> None:
        loss = self.eval_loss.value(self.trainer)
        self.log("val/loss", loss, prog_bar=True)
        if not self.trainer.sanity_checking:
            self.val_loss_best = min(self.val_loss_best, loss)
            self.log("val/loss_best", self.val_loss_best, prog_bar=True)

    def test_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        """Add nats and tokens of the batch; caption its images while `captions` is a dict."""
        if not len(batch):
            return
        states = self.encode(batch)
        self.eval_loss.add(*packed_loss(self.model, states, batch))
        if self.captions is not None:
            self.captions.update(zip(batch.image_ids, self.caption(states), strict=True))

    def on_test_epoch_end(self) -> None:
        self.log("test/loss", self.eval_loss.value(self.trainer))
        if self.captions is not None and self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, self.captions)
            self.captions = {name: text for part in gathered for name, text in part.items()}

    # --- captions -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def caption(self, states: Tensor) -> list[str]:
        """One caption for each of B images from encoder states (B,P,D)."""
        length = self.max_length or DEFAULT_LENGTH
        return generate_captions(self.model, self.preprocessing, states, length, self.num_beams)

    def generate(self, batch: CaptionBatch) -> list[str]:
        """One caption for each of the B images of a batch."""
        with torch.no_grad():
            return self.caption(self.encode(batch))

    # --- optimizer and checkpoints --------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        if self.optimizer is None:
            raise UserError("model.optimizer=null; expected an optimizer to train with; remove the override")
        optimizer = self.optimizer(parameter_groups(self.parameters()))
        if not self.lr_scheduler:
            return optimizer
        settings = dict(self.lr_scheduler)
        make = settings.pop("scheduler")
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError(
                "trainer.max_epochs=-1 with a schedule; expected an end; set trainer.max_epochs or "
                "model.lr_scheduler=null"
            )
        scheduler = make(optimizer, total_steps=int(steps)) if _wants_steps(make) else make(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **settings}}

    @contextlib.contextmanager
    def base_weights(self) -> Iterator[None]:
        """Inside, the model is the untouched base; afterwards the trained weights are back."""
        weights = self.trained_weights()
        trained = {name: weight.detach().clone() for name, weight in weights.items()}
        try:
            self._fill(self._base)
            yield
        finally:
            self._fill(trained)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self.trained_weights().items():
            weight.copy_(values[name])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained weights only, by public name, with the base's id and hash and the config."""
        checkpoint["state_dict"] = {self.names[n]: w.detach() for n, w in self.trained_weights().items()}
        checkpoint[METADATA_KEY] = {
            "format": FORMAT,
            "base": self.base_id,
            "base_sha256": self.base_sha256,
            "config": self.run_config,
            "val_loss_best": self.val_loss_best,
            "train_loss": self.train_loss.everywhere(self._trainer),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Turn public names back into this release's module names.

        Raises:
            UserError: other base weights, or other weights than those that train here.
        """
        check_base(checkpoint[METADATA_KEY], self.base_id, self.base_sha256)
        weights = match_names(checkpoint["state_dict"], self.names, self.trained_weights())
        checkpoint["state_dict"] = {f"model.{name}": weight for name, weight in weights.items()}
        self.val_loss_best = checkpoint[METADATA_KEY]["val_loss_best"]
        self.train_loss.take_over(checkpoint[METADATA_KEY].get("train_loss", [0.0, 0.0]), self._trainer)


def _wants_steps(make: Any) -> bool:
    import inspect

    return "total_steps" in inspect.signature(make).parameters
