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
)
from src.datamodule.caption_table import CaptionedImage
from src.utils.errors import UserError
from tests.datamodule.tiny import tiny_processor, write_images

PROCESSOR = tiny_processor()


def dataset(images: list[CaptionedImage], **settings) -> CaptionDataset:
    tokens, _ = tokenize_captions(images, PROCESSOR, PROCESSOR.token_limit())
    return CaptionDataset(images, PROCESSOR.image, tokens, **settings)


class Features:
    """A store whose values are the view; `without` it does not have."""

    def __init__(self, num_views: int = 1, without: str = "") -> None:
        self.num_views, self.without = num_views, without

    def get(self, image_id: str, view: int = 0) -> torch.Tensor:
        if image_id == self.without:
            raise KeyError(image_id)
        return torch.full((2, 3), float(view))


def test_an_item_holds_pixels_tokens_and_references(tmp_path: Path) -> None:
    images = write_images(tmp_path, 3)
    item = dataset(images)[2, 0]
    assert (item.image_id, item.unreadable) == ("002.png", {})
    assert (item.pixels.shape, item.pixels.dtype) == ((3, 8, 8), torch.uint8)
    assert item.pixels[:, 4, 4].tolist() == [2, 100, 200]
    assert [PROCESSOR.decode(ids) for ids in item.captions] == list(images[2].captions) == item.references
    tokens, num_cut = tokenize_captions(images, PROCESSOR, 6)
    assert ([PROCESSOR.decode(ids) for ids in tokens[0]], num_cut) == (["0 of i", "1 of i"], 6)


def test_captions_are_sampled_per_epoch_and_never_in_validation(tmp_path: Path) -> None:
    images = write_images(tmp_path, 1, captions=5)
    training = dataset(images, train=True, captions_per_image=2)
    seen = [tuple(map(tuple, training[0, epoch].captions)) for epoch in range(60)]
    assert {len(captions) for captions in seen} == {2}
    assert len({caption for captions in seen for caption in captions}) == 5
    assert seen[3] == tuple(map(tuple, training[0, 3].captions))
    assert len(training[0, 0].references) == 5
    assert len(dataset(images, captions_per_image=2)[0, 0].captions) == 5
    assert len(dataset(images, train=True, captions_per_image=9)[0, 0].captions) == 5
    many = write_images(tmp_path, 1, captions=70)
    sizes = [len(dataset(many, train=train)[0, 0].captions) for train in (True, False)]
    assert sizes == [MAX_CAPTIONS_PER_STEP, 70]


def test_features_replace_pixels_and_views_are_sampled_in_training_only(tmp_path: Path) -> None:
    images = write_images(tmp_path, 1)
    Path(images[0].path).unlink()  # not even looked at

    def views(train: bool) -> set[float]:
        items = dataset(images, train=train, features=Features(num_views=3))
        assert items[0, 0].pixels is None
        return {items[0, epoch].features[0, 0].item() for epoch in range(30)}

    assert (views(train=True), views(train=False)) == ({0.0, 1.0, 2.0}, {0.0})


def test_an_unreadable_image_is_replaced_in_training_and_named_otherwise(tmp_path: Path) -> None:
    images = write_images(tmp_path, 5)
    Path(images[1].path).write_bytes(b"")
    training = dataset(images, train=True)
    item = training[1, 0]
    assert item.references == list(images[int(item.image_id[:3])].captions)
    assert "001.png: a file of 0 bytes" in item.unreadable["001.png"]
    assert training[1, 0].image_id == item.image_id
    replacements = {training[1, epoch].image_id for epoch in range(20)}
    assert len(replacements) > 1
    assert "001.png" not in replacements
    item = dataset(images)[1, 0]
    assert (item.image_id, list(item.unreadable)) == ("", ["001.png"])
    item = dataset(images, train=True, features=Features(without="000.png"))[0, 0]
    assert item.image_id != "000.png"
    assert "no cached features" in item.unreadable["000.png"]


def test_all_unreadable_is_an_error(tmp_path: Path) -> None:
    images = [replace(image, path=str(tmp_path / "gone.png")) for image in write_images(tmp_path, 3)]
    with pytest.raises(UserError, match="20 images in a row cannot be read"):
        dataset(images, train=True)[0, 0]


def test_crops_depend_on_epoch_or_view_and_seed_and_view_0_is_the_image(tmp_path: Path) -> None:
    images = write_images(tmp_path, 1)
    Image.effect_noise((40, 30), 90).convert("RGB").save(images[0].path)
    training, plain = dataset(images, train=True, augment=True), dataset(images)[0, 0].pixels
    first, again, later = (training[0, epoch].pixels for epoch in (0, 0, 1))
    other = dataset(images, train=True, augment=True, seed=1)[0, 0].pixels
    assert torch.equal(first, again)
    assert not any(torch.equal(first, found) for found in (later, plain, other))
    assert torch.equal(dataset(images, augment=True)[0, 0].pixels, plain)

    content = Path(images[0].path).read_bytes()
    crops = [seeded_rng(0, view, "000.png", "view crop") for view in (1, 1, 2)]
    views = [decode_resized(images[0], content, PROCESSOR.image, crop) for crop in (None, *crops)]
    assert torch.equal(views[0], plain)
    assert torch.equal(views[1], views[2])
    assert not any(torch.equal(views[1], found) for found in (views[0], views[3]))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (30, 40), (200, 20)])
def test_crops_lie_within_the_image_and_are_not_mirrored(size: tuple[int, int]) -> None:
    height, width = size
    image = torch.arange(height * width).view(1, height, width).expand(3, -1, -1)
    for number in range(100):
        cropped = random_crop(image, random.Random(number))
        rows, columns = cropped.shape[1:]
        assert 1 <= rows <= height
        assert 1 <= columns <= width
        assert cropped[0, :, 0].diff().eq(width).all()
        assert cropped[0, 0, :].diff().eq(1).all()
        assert min(size) <= 20 or rows * columns >= 0.5 * height * width


def test_seeded_rng_depends_on_each_argument() -> None:
    keys = [(0, 0, "a", "x"), (1, 0, "a", "x"), (0, 1, "a", "x"), (0, 0, "b", "x"), (0, 0, "\ud800", "y")]
    assert len({seeded_rng(*key).random() for key in keys * 2}) == 5
