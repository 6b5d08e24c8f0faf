"""Small stand-ins for tests: a byte tokenizer, an image transform, images and a data module of them."""

from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionedImage, CaptionTable
from src.datamodule.processor import ImageTransform, Processor

END = "<|endoftext|>"


def transform(size: int = 8) -> ImageTransform:
    return ImageTransform((size, size), None, 2, 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@cache
def tiny_processor(size: int = 8, max_positions: int = 64) -> Processor:
    """GPT-2's scheme without merges: a token for each byte, and one that starts, ends and pads."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=END, eos_token=END, pad_token=END)
    end = tokenizer.eos_token_id
    return Processor(tokenizer, transform(size), end, end, end, max_positions)


def write_images(folder: Path, count: int, captions: int = 2) -> list[CaptionedImage]:
    """`count` images of one color each, 12 x 10 pixels, with captions of different lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number in range(count):
        path = folder / f"{number:03}.png"
        Image.new("RGB", (12, 10), (number % 256, 100, 200)).save(path)
        texts = tuple(f"{'very ' * (number % 5)}{k} of image {number}" for k in range(captions))
        images.append(CaptionedImage(path.name, str(path), texts, path.name))
    return images


def captions(table: CaptionTable) -> dict[str, tuple[str, ...]]:
    return {image.image_id: image.captions for image in table.images}


def skipped(table: CaptionTable) -> list[tuple[int, str, str]]:
    return [(row.line, row.image_id, row.reason) for row in table.skipped]


class TableDataModule(CaptionDataModule):
    """A data module over images that are given, not read."""

    def __init__(self, images: list[CaptionedImage], **settings: Any) -> None:
        def read() -> CaptionTable:
            self.reads += 1
            return CaptionTable(list(images), [], sum(len(image.captions) for image in images))

        self.reads = 0
        super().__init__(read, **{"num_workers": 0, "batch_size": 4, "processor": tiny_processor(), **settings})
