"""Caption images in three lines:

    from src.captioner import Captioner
    captioner = Captioner.from_checkpoint("logs/train/runs/<run>")
    print(captioner.caption(["dog.jpg", "beach.jpg"]))

B images, P patches, D width, H and W an image's height and width, h and w those of the encoder's input.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import VisionEncoderDecoderModel

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import UnreadableImage, decode_bytes, from_pillow, read_bytes
from src.datamodule.loader import choose_workers, read_ahead
from src.datamodule.processor import Processor
from src.models.attention_maps import WordAttention, visible_crop, word_attention
from src.models.generation import Hypothesis, generate_captions, generate_nbest, resolve_generation
from src.models.kernels.attention import use_math_attention
from src.models.restore import open_captioner
from src.utils.errors import UserError
from src.utils.hub import silence_transformers
from src.utils.precision import choose_precision

ImageLike = str | Path | bytes | IO[bytes] | Image.Image | np.ndarray | Tensor | CaptionedImage
BATCH_SIZE = 16


class Captioner:
    """Caption images with a model in eval mode.

    device: auto (the machine's accelerator, else the CPU) or one of torch's names.
    precision: auto (bf16 where the hardware multiplies it natively, as in training and evaluation), bf16, 32.
    generation: settings of captions as in configs/model/vit_gpt2.yaml: max_length, num_beams, do_sample, ...
    UserError: a setting out of range.
    """

    def __init__(
        self,
        model: VisionEncoderDecoderModel,
        processor: Processor,
        device: str = "auto",
        precision: str = "auto",
        **generation: Any,
    ) -> None:
        self.generation = resolve_generation(generation, processor, key="")
        self.device = choose_device(device)
        if precision not in ("auto", "bf16", "32"):
            raise UserError(f"precision={precision!r}; expected auto, bf16, 32; set precision=auto")
        is_bf16 = str(choose_precision(precision, self.device.type)).startswith("bf16")
        self.dtype = torch.bfloat16 if is_bf16 else torch.float32  # of matrix products
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.processor = processor
        use_math_attention(self.model.encoder)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, base: str = "", log_dir: str | Path = "", **settings: Any
    ) -> "Captioner":
        """Load a run folder, a `.ckpt`, `last`, a folder of `save_pretrained` or of `src.export`, or a hub id.

        base: where a run's base weights are now, if they were moved. log_dir: where `last` looks for the newest run.
        settings: as of `Captioner`; those of captions are the evaluation's when they are None or not given.
        UserError: nothing there, damaged, another kind of model, or a setting out of range.
        """
        found = open_captioner(checkpoint, base, log_dir)
        given = {name: value for name, value in settings.items() if value is not None}
        return cls(found.model, found.processor, **{**found.generation, **given})

    def caption(self, images: ImageLike | Iterable[ImageLike], batch_size: int = BATCH_SIZE) -> list[str]:
        """Return one caption per image, in order; a single image gives a list of one.

        images: paths, files' bytes or open files, PIL images, uint8 arrays (H,W) or (H,W,3) or tensors (3,H,W), RGB, of
        any sizes; or one tensor (B,3,H,W).
        UnreadableImage: an image is missing or damaged; `stream` continues instead.
        UserError: a tensor of another type or shape, or batch_size below 1.
        """
        alone = isinstance(images, str | Path | bytes | Image.Image | np.ndarray) or hasattr(images, "read")
        if alone or (isinstance(images, Tensor) and images.ndim == 3):
            images = [images]  # type: ignore[list-item]
        captions = []
        for found in self.stream(images, batch_size):  # type: ignore[arg-type]
            if isinstance(found, UnreadableImage):
                raise found
            captions.append(found)
        return captions

    def stream(self, images: Iterable[ImageLike], batch_size: int = BATCH_SIZE, nbest: bool = False) -> Iterator[Any]:
        """Yield for each image, in order, its caption (with `nbest`, what `nbest` returns) or its UnreadableImage.

        UserError as `caption`.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}; expected 1 or more; set batch_size={BATCH_SIZE}")
        remaining = iter(images)
        batches = iter(lambda: list(itertools.islice(remaining, batch_size)), [])
        for loaded in read_ahead(self._load_batch, batches, choose_workers(None, pixels=True)):
            readable = [pixels for pixels in loaded if isinstance(pixels, Tensor)]
            normalize = self.processor.image.normalize
            captions = iter(self._generate(normalize(torch.stack(readable)), nbest) if readable else ())
            yield from (next(captions) if isinstance(one, Tensor) else one for one in loaded)

    def nbest(self, image: ImageLike) -> list[Hypothesis]:
        """Return the finished beams of an image, at most num_beams, best first: the first is `caption`'s."""
        return self._generate(self.processor.image(self.load(image))[None], nbest=True)[0]

    def attention(self, image: ImageLike, captions: Sequence[str]) -> list[WordAttention] | None:
        """Return the cross-attention maps of each word of the captions, the image's own or any others.

        None where the encoder's states are no square grid of patches, or the decoder gives no attention.
        """
        pixels, transform = self.load(image), self.processor.image
        states = self.encode(transform(pixels)[None]).float().repeat(len(captions), 1, 1)  # (B,P,D)
        region = visible_crop(transform, *pixels.shape[1:])
        return word_attention(self.model, self.processor, states, captions, region) if captions else []

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return encoder states (B,P,D), on the captioner's device, of pixels f32 (B,3,h,w)."""
        with self._autocast():
            return self.model.encoder(pixels.to(self.device)).last_hidden_state

    def load(self, image: ImageLike, side: int | None = None) -> Tensor:
        """Return pixels uint8 (3,H,W) of an image; raises UnreadableImage and UserError as `caption` does.

        side: pixels of a side that are needed, for a much larger JPEG to be decoded at a reduced scale.
        """
        if isinstance(image, str | Path):
            return decode_bytes(read_bytes(image), str(image), side=side)
        if isinstance(image, CaptionedImage):
            return decode_bytes(read_bytes(image.path, image.span), image.path, image.box, side=side)
        if isinstance(image, bytes) or hasattr(image, "read"):
            content: Any = image if isinstance(image, bytes) else image.read()  # type: ignore[union-attr]
            return decode_bytes(content, "the image", side=side)
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
            image = Image.fromarray(image)
        if isinstance(image, Image.Image):
            try:
                return from_pillow(image)
            except (OSError, ValueError, SyntaxError) as error:
                raise UnreadableImage(f"a PIL image cannot be read: {error}; expected a whole image") from error
        if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and len(image) == 3:
            return image.cpu()
        shape = f" of {image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else ""
        expected = "expected a path, bytes, a PIL image, a uint8 array (H,W,3) or tensor (3,H,W), RGB; convert it"
        raise UserError(f"an image is a {type(image).__name__}{shape}; {expected}")

    def _load_batch(self, images: Sequence[ImageLike]) -> list[Tensor | UnreadableImage]:
        loaded: list[Tensor | UnreadableImage] = []  # uint8 (3,h,w), resized and cropped
        transform = self.processor.image
        for image in images:
            try:
                pixels = self.load(image, max(transform.height, transform.width))
                loaded.append(transform.resize_and_crop(pixels))
            except UnreadableImage as error:
                loaded.append(error)
        return loaded

    def _generate(self, pixels: Tensor, nbest: bool = False) -> list[Any]:
        states = self.encode(pixels)  # f32 (B,3,h,w) -> (B,P,D)
        search = generate_nbest if nbest else generate_captions
        with self._autocast(), silence_transformers():
            return search(self.model, self.processor, states, self.generation)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def choose_device(device: str) -> torch.device:
    """Resolve `auto` to the machine's accelerator, else the CPU; raises UserError where torch cannot use it."""
    if device == "auto":
        device = str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UserError(f"device={device!r} fails ({reason}); expected cpu, cuda or mps; set device=auto") from error
