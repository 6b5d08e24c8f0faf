"""What an item is: pixels or features, sampled captions and crops, and unreadable images replaced."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from src.datamodule.caption_dataset import (
    MAX_CAPTIONS_PER_STEP,
    CaptionDataset,
    decode_resized,
    random_crop,
    seeded_rng,
    tokenize_captions,
    view_crop,
)
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.processor import Processor
from src.utils.errors import UserError
from tests.datamodule.tiny import draw, preprocessing


@pytest.fixture(scope="module")
def processor() -> Processor:
    return preprocessing()


def dataset(images: list[CaptionedImage], processor: Processor, **settings) -> CaptionDataset:
    tokens, _ = tokenize_captions(images, processor, processor.token_limit())
    return CaptionDataset(images, processor.image, tokens, **settings)


class Features:
    """A store whose values tell image and view; `without` it does not have."""

    def __init__(self, num_views: int = 1, without: str = "") -> None:
        self.num_views, self.without = num_views, without

    def get(self, image_id: str, view: int = 0) -> torch.Tensor:
        if image_id == self.without:
            raise KeyError(image_id)
        return torch.full((2, 3), float(view))


def test_an_item_holds_pixels_tokens_and_references(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path, 3)
    item = dataset(images, processor)[2, 0]
    assert item.image_id == "002.png"
    assert item.pixels is not None
    assert item.pixels.shape == (3, 8, 8)
    assert item.pixels.dtype == torch.uint8
    assert item.pixels[:, 4, 4].tolist() == [2, 100, 200]
    assert [processor.decode(ids) for ids in item.captions] == list(images[2].captions) == item.references
    assert item.unreadable == {}


def test_a_box_is_cropped(tmp_path: Path, processor: Processor) -> None:
    image = Image.new("RGB", (20, 20))
    image.paste((9, 9, 9), (10, 10, 20, 20))
    image.save(tmp_path / "a.png")
    image = CaptionedImage("a.png#1", str(tmp_path / "a.png"), ("part",), "a", (10, 10, 20, 20))
    pixels = dataset([image], processor)[0, 0].pixels
    assert pixels is not None
    assert pixels.eq(9).all()


def test_captions_are_sampled_per_epoch_and_never_in_validation(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path, 4, captions=5)
    training = dataset(images, processor, train=True, captions_per_image=2)
    seen = [[tuple(map(tuple, training[i, epoch].captions)) for i in range(4)] for epoch in range(8)]
    assert all(len(captions) == 2 for row in seen for captions in row)
    assert len({captions for row in seen for captions in [row[0]]}) > 1
    assert seen[3] == [tuple(map(tuple, training[i, 3].captions)) for i in range(4)]
    assert len(training[0, 0].references) == 5
    assert len(dataset(images, processor, captions_per_image=2)[0, 0].captions) == 5
    assert len(dataset(images, processor, train=True, captions_per_image=9)[0, 0].captions) == 5


def test_each_caption_is_sampled(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path, 1, captions=5)
    training = dataset(images, processor, train=True, captions_per_image=1)
    assert len({tuple(training[0, epoch].captions[0]) for epoch in range(60)}) == 5


def test_features_replace_pixels(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path / "a", 2)
    (tmp_path / "a" / "000.png").unlink()  # not even looked at
    item = dataset(images, processor, features=Features())[0, 0]
    assert item.pixels is None
    assert item.features is not None
    assert item.features.shape == (2, 3)


def test_views_are_sampled_in_training_only(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path, 1)

    def views(train: bool) -> set[float]:
        items = dataset(images, processor, train=train, features=Features(num_views=3))
        return {items[0, epoch].features[0, 0].item() for epoch in range(30)}

    assert views(train=True) == {0.0, 1.0, 2.0}
    assert views(train=False) == {0.0}


def test_a_unreadable_image_is_replaced_in_training(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path, 5)
    Path(images[1].path).write_bytes(b"")
    training = dataset(images, processor, train=True)
    item = training[1, 0]
    assert item.image_id in {"000.png", "002.png", "003.png", "004.png"}
    assert item.references == list(images[int(item.image_id[:3])].captions)
    assert list(item.unreadable) == ["001.png"]
    assert "001.png: a file of 0 bytes" in item.unreadable["001.png"]
    assert training[1, 0].image_id == item.image_id
    assert len({training[1, epoch].image_id for epoch in range(20)}) > 1


def test_a_unreadable_image_is_named_otherwise(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path, 2)
    Path(images[0].path).unlink()
    item = dataset(images, processor)[0, 0]
    assert item.image_id == ""
    assert "no such file" in item.unreadable["000.png"]


def test_missing_features_count_as_unreadable(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path, 3)
    item = dataset(images, processor, train=True, features=Features(without="000.png"))[0, 0]
    assert item.image_id != "000.png"
    assert "no cached features" in item.unreadable["000.png"]


def test_all_unreadable_is_an_error(tmp_path: Path, processor: Processor) -> None:
    images = [replace(image, path=str(tmp_path / "gone.png")) for image in draw(tmp_path, 3)]
    with pytest.raises(UserError, match="20 images in a row cannot be read"):
        dataset(images, processor, train=True)[0, 0]


def test_augmented_pixels_depend_on_epoch_seed_and_image_only(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path, 2)
    for image in images:
        Image.effect_noise((40, 30), 90).convert("RGB").save(image.path)
    training = dataset(images, processor, train=True, augment=True)
    plain = dataset(images, processor)[0, 0].pixels
    first, again, later = (training[0, epoch].pixels for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first, plain)
    other = dataset(images, processor, train=True, augment=True, seed=1)[0, 0].pixels
    assert not torch.equal(first, other)
    assert torch.equal(dataset(images, processor, augment=True)[0, 0].pixels, plain)


def test_view_0_is_the_image_and_others_are_crops(tmp_path: Path, processor: Processor) -> None:
    image = draw(tmp_path, 1)[0]
    Image.effect_noise((40, 30), 90).convert("RGB").save(image.path)
    data = Path(image.path).read_bytes()
    views = [
        decode_resized(image, data, processor.image, view_crop(0, view, image)) for view in (0, 0, 1, 1, 2)
    ]
    assert torch.equal(views[0], dataset([image], processor)[0, 0].pixels)
    assert torch.equal(views[2], views[3])
    assert not torch.equal(views[0], views[2])
    assert not torch.equal(views[2], views[4])


def test_captions_above_the_bound_take_turns_over_epochs(tmp_path: Path, processor: Processor) -> None:
    images = draw(tmp_path, 1, captions=70)
    training = dataset(images, processor, train=True)
    seen = [[tuple(ids) for ids in training[0, epoch].captions] for epoch in range(3)]
    assert [len(captions) for captions in seen] == [MAX_CAPTIONS_PER_STEP] * 3
    assert len({caption for captions in seen for caption in captions}) == 70
    assert len(dataset(images, processor)[0, 0].captions) == 70  # val and test score all of them
    assert len(dataset(images[:1], processor, train=True, captions_per_image=60)[0, 0].captions) == 60


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (30, 40), (200, 20)])
def test_crops_lie_within_the_image_and_are_not_mirrored(size: tuple[int, int]) -> None:
    height, width = size
    image = torch.arange(height * width).view(1, height, width).expand(3, -1, -1)
    for number in range(200):
        part = random_crop(image, random.Random(number))
        rows, columns = part.shape[1:]
        assert 1 <= rows <= height
        assert 1 <= columns <= width
        assert part[0, :, 0].diff().eq(width).all()
        assert part[0, 0, :].diff().eq(1).all()
        if min(size) > 20:
            assert rows * columns >= 0.5 * height * width


def test_captions_are_cut_and_counted(processor: Processor) -> None:
    texts = {"a": ("abcde", "xy"), "b": ("",), "c": ("abcdefgh",)}
    images = [CaptionedImage(name, name, captions, name) for name, captions in texts.items()]
    tokens, num_cut = tokenize_captions(images, processor, 6)
    assert [[processor.decode(ids) for ids in row] for row in tokens] == [["abcde", "xy"], [""], ["abcdef"]]
    assert num_cut == 1
    assert tokenize_captions([], processor, 6) == ([], 0)


def test_seeded_rng_depends_on_each_argument() -> None:
    numbers = {
        seeded_rng(*key).random()
        for key in [(0, 0, "a", "x"), (1, 0, "a", "x"), (0, 1, "a", "x"), (0, 0, "b", "x"), (0, 0, "a", "y")]
    }
    assert len(numbers) == 5
    assert seeded_rng(0, 0, "\ud800", "x").random() == seeded_rng(0, 0, "\ud800", "x").random()
