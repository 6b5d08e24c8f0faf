"""A captioner in three lines:

    from src.captioner import Captioner
    captioner = Captioner.from_checkpoint("logs/train/runs/<stamp>")
    print(captioner.caption(["dog.jpg", "beach.jpg"]))

B images, P patches, D width, H, W a picture's height and width, h, w those that the encoder wants.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import VisionEncoderDecoderModel

from src.datamodule.images.decode import UnreadableImage, from_pillow, load_image
from src.datamodule.loader import choose_workers, read_ahead
from src.datamodule.processor import Processor
from src.models.attention_maps import WordAttention, seen_region, word_attention
from src.models.backbone import strip_pooler
from src.models.generation import Hypothesis, generate_captions, generate_nbest
from src.models.kernels.attention import use_math_attention
from src.models.pretrained import quiet_transformers
from src.models.restore import Restored, open_captioner
from src.utils.errors import UserError
from src.utils.hardware import has_native_bf16, warn_of_software_bf16

Picture = str | Path | Image.Image | Tensor
PRECISIONS = ("auto", "bf16", "32")
BATCH = 16  # pictures that are captioned at once


@dataclass(frozen=True, slots=True)
class Loaded:
    """Some pictures on their way: pixels f32 (B,3,h,w) of those that could be read, None if none could.

    errors: one entry for each picture, None where it was read.
    """

    pixels: Tensor | None
    errors: list[UnreadableImage | None]


class Captioner:
    """Captions pictures with a model in eval mode.

    max_length: tokens of a caption, start token included. num_beams: beams of the search, 1 is greedy.
    device: auto (CUDA, else Apple's GPU, else the CPU) or one of torch's names.
    precision: auto (bf16 where the hardware multiplies it natively, as in training and evaluation), bf16, 32.
    """

    def __init__(
        self,
        model: VisionEncoderDecoderModel,
        preprocessing: Processor,
        max_length: int = 32,
        num_beams: int = 4,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        if not 2 <= max_length <= preprocessing.max_positions:
            raise UserError(
                f"max_length={max_length}; expected 2 to {preprocessing.max_positions} tokens, which the decoder "
                "has; set max_length=32"
            )
        if num_beams < 1:
            raise UserError(f"num_beams={num_beams}; expected 1 or more; set num_beams=4")
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.preprocessing = preprocessing
        self.max_length, self.num_beams = max_length, num_beams
        use_math_attention(self.model.encoder)
        self._encoder = strip_pooler(self.model.encoder)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        base: str | None = None,
        max_length: int | None = None,
        num_beams: int | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> "Captioner":
        """A run folder, a `.ckpt`, `last`, a folder of `save_pretrained` or of `src.export`, or a hub id.

        base: where a run's base weights are now, if they were moved. max_length and num_beams: None asks as
        the run's evaluation did, or as the saved generation config says.

        Raises:
            UserError: nothing there, damaged, another kind of model, or a setting out of range.
        """
        return cls.from_restored(open_captioner(checkpoint, base), max_length, num_beams, device, precision)

    @classmethod
    def from_restored(
        cls,
        found: Restored,
        max_length: int | None = None,
        num_beams: int | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> "Captioner":
        """As `from_checkpoint`, of a checkpoint that is open already."""
        length = found.max_length if max_length is None else max_length
        beams = found.num_beams if num_beams is None else num_beams
        return cls(found.model, found.preprocessing, length, beams, device, precision)

    def caption(self, images: Picture | Iterable[Picture], batch_size: int = BATCH) -> list[str]:
        """One caption for each picture, in order; a single picture gives a list of one.

        images: paths, PIL images or uint8 tensors (3,H,W), RGB, of any sizes; or one tensor (B,3,H,W).

        Raises:
            UnreadableImage: a picture is missing or damaged; `stream` goes on instead.
            UserError: a tensor of another type or shape, or batch_size below 1.
        """
        if isinstance(images, str | Path | Image.Image) or (isinstance(images, Tensor) and images.ndim == 3):
            images = [images]
        captions = []
        for found in self.stream(images, batch_size):
            if isinstance(found, UnreadableImage):
                raise found
            captions.append(found)
        return captions

    def stream(
        self, images: Iterable[Picture], batch_size: int = BATCH, num_workers: int | None = None
    ) -> Iterator[str | UnreadableImage]:
        """For each picture, in order, its caption or why it cannot be read; pictures are loaded in threads.

        num_workers: threads; None takes one for each core, 0 none.

        Raises:
            UserError: a tensor of another type or shape, or batch_size below 1.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}; expected 1 or more; set batch_size={BATCH}")
        workers = choose_workers(num_workers, pixels=True)
        for batch in read_ahead(self._load, _groups(images, batch_size), workers):
            captions = iter(() if batch.pixels is None else self._caption(batch.pixels))
            yield from (next(captions) if error is None else error for error in batch.errors)

    def alternatives(self, image: Picture) -> list[Hypothesis]:
        """The captions that the beams ended with, at most num_beams, best first: the first is `caption`'s.

        Raises:
            UnreadableImage: the picture is missing or damaged.
            UserError: a tensor of another type or shape.
        """
        pixels = self.preprocessing.image(self.load(image))[None]  # (1,3,h,w)
        states = self.encode(pixels.to(self.device))
        with self.autocast(), quiet_transformers():
            return generate_nbest(self.model, self.preprocessing, states, self.max_length, self.num_beams)[0]

    def attention(self, image: Picture, captions: str | Sequence[str]) -> list[WordAttention] | None:
        """For each caption, its own or any other, where in the picture the decoder looks as it says each word.

        None where the encoder's states are no square grid of patches, or the decoder gives no attention.

        Raises:
            UnreadableImage: the picture is missing or damaged.
            UserError: a tensor of another type or shape.
        """
        captions = [captions] if isinstance(captions, str) else captions
        picture, transform = self.load(image), self.preprocessing.image
        states = self.encode(transform(picture)[None].to(self.device)).float()  # (1,P,D)
        shared = states.repeat(len(captions), 1, 1)
        found = word_attention(self.model, self.preprocessing, shared, captions) if captions else []
        region = seen_region(transform, *picture.shape[1:])
        return None if found is None else [replace(words, region=region) for words in found]

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Encoder states (B,P,D) of pixels f32 (B,3,h,w), both on the captioner's device."""
        with self.autocast():
            return self._encoder(pixels).last_hidden_state

    def autocast(self) -> torch.autocast:
        """The precision of the products."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def load(self, image: Picture) -> Tensor:
        """Pixels uint8 (3,H,W) of a picture.

        Raises:
            UnreadableImage: it is missing or damaged.
            UserError: a tensor of another type or shape, or no picture at all.
        """
        if isinstance(image, str | Path):
            return load_image(image)
        if isinstance(image, Image.Image):
            try:
                return from_pillow(image)
            except (OSError, ValueError, SyntaxError) as error:
                raise UnreadableImage(
                    f"a PIL image cannot be read: {error}; expected a whole picture"
                ) from error
        if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and len(image) == 3:
            return image.cpu()
        shape = f" of {image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else ""
        raise UserError(
            f"a picture is a {type(image).__name__}{shape}; expected a path, a PIL image or a uint8 tensor "
            "(3,H,W), RGB; convert it"
        )

    def _load(self, images: Sequence[Picture]) -> Loaded:
        transform = self.preprocessing.image
        fitted: list[Tensor] = []
        errors: list[UnreadableImage | None] = []
        for image in images:
            try:
                fitted.append(transform.fit(self.load(image)))  # uint8 (3,h,w)
                errors.append(None)
            except UnreadableImage as error:
                errors.append(error)
        return Loaded(transform.normalize(fitted) if fitted else None, errors)

    def _caption(self, pixels: Tensor) -> list[str]:
        """Captions of pixels f32 (B,3,h,w)."""
        states = self.encode(pixels.to(self.device))
        with self.autocast(), quiet_transformers():
            return generate_captions(self.model, self.preprocessing, states, self.max_length, self.num_beams)


def choose_device(device: str) -> torch.device:
    """`auto` is CUDA, else Apple's GPU, else the CPU; others stay as set.

    Raises:
        UserError: torch does not know it, or it is not there.
    """
    if device == "auto":
        apple = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else apple
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UserError(
            f"device={device!r} cannot be used ({reason}); expected cpu, cuda or mps; set device=auto"
        ) from error
    return chosen


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The precision of the products.

    Raises:
        UserError: an unknown word.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision!r}; expected {', '.join(PRECISIONS)}; set precision=auto")
    warn_of_software_bf16(precision, device.type)
    native = precision == "auto" and has_native_bf16(device.type)
    return torch.bfloat16 if precision == "bf16" or native else torch.float32


def _groups(images: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    """`images` in lists of `size`, taken when they are asked for."""
    rest = iter(images)
    while group := list(itertools.islice(rest, size)):
        yield group
