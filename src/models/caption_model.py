"""The captioner as an nn.Module: encode images, loss of packed captions, generate captions. No Lightning.

pixels -> embeddings -> blocks[:depth] -> features (cached) -> blocks[depth:] -> layernorm -> encoder states

B images, H x W pixels, P patches + class token, D width.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import VisionEncoderDecoderModel
from transformers.pytorch_utils import Conv1D

from src.datamodule.collate import CaptionBatch
from src.datamodule.processor import Processor, load_processor
from src.models import checkpoint as files
from src.models.freezing import adapted_names, add_lora, choose_trainable, count_frozen_blocks, find_blocks
from src.models.generation import generate_captions, generation_config, resolve_generation
from src.models.kernels.attention import use_math_attention
from src.models.kernels.linear import page_out, tune_malloc
from src.models.loss import can_use_cpu_kernels, packed_loss
from src.models.pretrained import is_pooler, load_captioner, resize_positions
from src.utils.errors import UserError


class CaptionModel(nn.Module):
    """A VisionEncoderDecoder network of which some blocks train; raises UserError for a setting out of range.

    train, num_layers_to_train, new_weights: see `choose_trainable`. lora: settings of peft.LoraConfig, for train=lora.
    generation: see `resolve_generation`. kernels: reference (transformers' own decoder, any device), cpu
    (`models/kernels`: a plain GPT-2 on a CPU), or auto. compile: compile the encoder's blocks, and
    all that follows the backbone where kernels are the reference.
    label_smoothing: probability that the loss's gradient, not its value, moves from the label to the whole vocabulary.
    """

    def __init__(
        self,
        network: VisionEncoderDecoderModel,
        processor: Processor,
        train: str = "last_blocks",
        num_layers_to_train: int = 1,
        lora: Mapping[str, Any] | None = None,
        new_weights: Collection[str] = (),
        generation: Mapping[str, Any] | None = None,
        kernels: str = "auto",
        compile: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if kernels not in ("auto", "reference", "cpu"):
            raise UserError(f"model.kernels={kernels!r}; expected auto, reference, cpu; set model.kernels=auto")
        self.network, self.processor, self.kernels = network, processor, kernels
        self.base_id = self.base_sha256 = ""  # of `from_base`, like the next line
        self.digests, self.names = dict[str, str](), dict[str, str]()  # SHA-256 by hub name, hub names by module names
        self.label_smoothing, self.has_bf16_decoder = label_smoothing, False
        self.generation = resolve_generation(generation or {}, processor)
        network.generation_config = generation_config(processor, self.generation)
        trained = choose_trainable(network, train, num_layers_to_train, new_weights)
        if train == "lora":
            trained += add_lora(network, lora, new_weights)
        self._trained_modules = (trained,)  # in a tuple, so that torch does not register them twice
        self._base = {name: weight.detach().clone() for name, weight in self.trained_weights().items()}
        self.depth = count_frozen_blocks(network.encoder)
        if kernels != "reference":
            use_math_attention(network.encoder)
        if compile:
            for block in find_blocks(network.encoder):  # one graph serves all of them
                block.compile()
        self._compiled: Any = torch.compile(self._forward) if compile and self.depth else None

    @classmethod
    def from_base(
        cls,
        checkpoint: str | None = None,
        revision: str | None = None,
        from_encoder_decoder: Mapping[str, str] | None = None,
        image_size: int | None = None,
        seed: int = 0,
        processor: Processor | None = None,
        generation: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> "CaptionModel":
        """Load base weights and choose what trains: see `load_processor`, `load_captioner`; settings of this class."""
        source = checkpoint, revision, from_encoder_decoder
        processor = processor or load_processor(*source, image_size)
        network, processor, base_id, new_weights = load_captioner(*source, seed or 0, processor)
        names = files.hub_parameter_names(network)
        digests = files.weight_digests(network, names, "" if new_weights else base_id)
        if image_size:
            resize_positions(network.encoder, image_size)
        unsaved = {names[name] for name in names if name in new_weights or is_pooler(name)}
        generation = {"seed": seed, **(generation or {})}
        model = cls(network, processor, new_weights=new_weights, generation=generation, **settings)
        model.base_id, model.digests, model.names = base_id, digests, adapted_names(network, names)
        model.base_sha256 = files.combine_digests(digests, digests.keys() - unsaved)
        return model

    def trained_weights(self) -> dict[str, nn.Parameter]:
        """The weights that train, by their names in `network`."""
        return {name: weight for name, weight in self.network.named_parameters() if weight.requires_grad}

    def match_checkpoint(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the weights of a checkpoint by their names here; see `match_weights`."""
        weights = files.match_weights(checkpoint, self.base_sha256, self.names, self.trained_weights())
        return {f"network.{name}": weight for name, weight in weights.items()}

    def backbone_fingerprint(self) -> str:
        """Changes with any weight of the backbone, with where it ends and with the processing of pixels."""
        trained = {self.names[name] for name in self.trained_weights()}
        encoder = {name for name in self.digests if name.startswith("encoder.") and not is_pooler(name)}
        weights = files.combine_digests(self.digests, encoder - trained)[:32]
        return f"{weights}-{self.depth}-{self.processor.image.fingerprint()}"

    def train(self, mode: bool = True) -> "CaptionModel":
        """Set the mode of the modules that train; frozen ones stay in eval mode (no dropout)."""
        super().train(False)
        self.training = mode
        for module in self._trained_modules[0]:
            module.train(mode)
        return self

    def uses_cpu_kernels(self, device: torch.device) -> bool:
        """Whether `models/kernels` compute loss and captions on a device; UserError where kernels=cpu cannot."""
        possible = can_use_cpu_kernels(self.network, device)
        if self.kernels == "cpu" and not possible:
            raise UserError(
                f"model.kernels=cpu with {type(self.network.decoder).__name__} on {device.type}; expected a plain "
                "GPT-2 decoder (no LoRA) on a CPU; set model.kernels=auto"
            )
        return possible and self.kernels != "reference"

    def prepare(self, device: torch.device, precision: str = "") -> None:
        """Tune the process for the kernels that a device gets, and the weights for the Trainer's precision."""
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
            if precision == "bf16-mixed":
                self.store_frozen_in_bf16()
        if self.uses_cpu_kernels(device):
            tune_malloc()

    def store_frozen_in_bf16(self) -> None:
        """Store the decoder's frozen matrices as autocast casts them in every step; cached features may be fp32."""
        modules = list(self.network.decoder.modules())
        shared = {module.weight for module in modules if isinstance(module, nn.Embedding)}  # autocast leaves these
        for module in modules:
            for weight in module.parameters(recurse=False) if isinstance(module, nn.Linear | Conv1D) else ():
                if not weight.requires_grad and weight not in shared:
                    weight.data = weight.data.bfloat16()
        self.has_bf16_decoder = True

    @torch.no_grad()
    def backbone_features(self, pixel_values: Any) -> Tensor:
        """Run the frozen backbone, embeddings and `depth` blocks: pixels (B,3,H,W) to features (B,P,D)."""
        encoder: Any = self.network.encoder
        return self._run_blocks(encoder.embeddings(pixel_values), slice(self.depth))

    def encode(self, batch: CaptionBatch) -> Tensor:
        """Encoder states (B,P,D) of a batch of pixels or of cached features, in any precision."""
        encoder: Any = self.network.encoder
        if not self.depth:
            return encoder(batch.pixel_values).last_hidden_state
        features = self.backbone_features(batch.pixel_values) if batch.features is None else batch.features
        if not torch.is_autocast_enabled(features.device.type):
            features = features.to(next(encoder.parameters()).dtype)
        return encoder.layernorm(self._run_blocks(features, slice(self.depth, None)))

    def _run_blocks(self, features: Tensor, which: slice) -> Tensor:
        encoder: Any = self.network.encoder
        settings: dict[str, Any] = {}
        if hasattr(encoder, "shared_position_bias"):  # BEiT's blocks take the image's size and a bias that they share
            size, patch = (self.processor.image.height, self.processor.image.width), encoder.config.patch_size
            shared = {"interpolate_pos_encoding": False, "dim_size": features.shape[1]}
            bias = encoder.shared_position_bias
            mask = None if bias is None else bias((size[0] // patch, size[1] // patch), **shared)
            settings = {"attention_mask": mask, "resolution": size}
        for block in encoder.layers[which]:
            features = block(features, **settings)
        return features

    def page_out_backbone(self) -> None:
        """Page out the backbone's weights while cached features are read; pixels would read them again."""
        encoder: Any = self.network.encoder
        for module in (encoder.embeddings, *encoder.layers[: self.depth]):
            for weight in module.parameters():
                page_out(weight)

    def loss(self, states: Tensor, batch: CaptionBatch, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy in nats, f32 (), of encoder states (B,P,D), and its number of tokens, i64 (), M.

        weights: f32 (M), of each token in the sum, with labels as they are; None: 1, with smoothed labels.
        """
        settings = (self.label_smoothing, None) if weights is None else (0.0, weights)
        return packed_loss(self.network, states, batch, self.uses_cpu_kernels(states.device), *settings)

    @torch.no_grad()
    def image_losses(self, states: Tensor, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
        """The same of each image: nats, f32 (B), and tokens, i64 (B)."""
        row = batch.token_index // batch.input_ids.shape[1]  # (M)
        image = row if batch.row_image is None else batch.row_image[row]
        one_hot = nn.functional.one_hot(image, len(batch)).T  # (B,M)
        return self.loss(states, batch, one_hot.float())[0], one_hot.sum(1)

    def forward(self, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy of a batch and its number of tokens: see `loss`."""
        if self._compiled is None or self.uses_cpu_kernels(batch.input_ids.device):
            return self._forward(batch)
        if batch.features is None:
            batch = replace(batch, features=self.backbone_features(batch.pixel_values), pixels=None)
        loss: tuple[Tensor, Tensor] = self._compiled(batch)  # any number of images, rows and tokens is one graph
        return loss

    def _forward(self, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
        return self.loss(self.encode(batch), batch)

    @torch.no_grad()
    def generate(self, states: Tensor) -> list[str]:
        """Generate a caption for each of B images from encoder states (B,P,D).

        All beams of an image share the cross-attention keys and values of its states (`kernels/beam_search.py`).
        """
        settings = self.generation, self.uses_cpu_kernels(states.device)
        return generate_captions(self.network, self.processor, states, *settings)

    @contextlib.contextmanager
    def base_weights(self) -> Iterator[None]:
        """Inside, the model is the untouched base; afterwards the trained weights are back."""
        trained = {name: weight.detach().clone() for name, weight in self.trained_weights().items()}
        try:
            self.network.load_state_dict(self._base, strict=False)
            yield
        finally:
            self.network.load_state_dict(trained, strict=False)
