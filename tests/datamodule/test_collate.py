"""Packing and its layouts by a hand-made example, and for any captions at all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule import collate as module
from src.datamodule.caption_dataset import CaptionItem
from src.datamodule.collate import CaptionBatch, collate, pack_captions
from tests.datamodule.tiny import transform
from tests.models.random_captioner import unpack

TRANSFORM = transform()


def item(name: str, captions: list[list[int]], level: int | None = 0, **more: object) -> CaptionItem:
    pixels = None if level is None else torch.full((3, 2, 4), level, dtype=torch.uint8)
    return CaptionItem(name, captions, [f"{name} {k}" for k in range(len(captions))], pixels, **more)


def batch_of(items: list[CaptionItem], end: int = 50256) -> CaptionBatch:
    return collate(items, TRANSFORM, end, end, end)


def test_the_example_of_the_docstring() -> None:
    packed = pack_captions([[[7, 8], [9]], [[5]]], start_id=1, eos_id=2, pad_id=0, multiple=6)
    assert packed["input_ids"].tolist() == [[1, 7, 8, 1, 9, 0], [1, 5, 0, 0, 0, 0]]
    assert packed["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 0, 0]]
    assert packed["caption_index"].tolist() == [[0, 0, 0, 1, 1, -1], [0, 0, -1, -1, -1, -1]]
    assert packed["labels"].tolist() == [[7, 8, 2, 9, 2, -100], [5, 2, -100, -100, -100, -100]]
    assert packed["token_index"].tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert packed["row_image"] is None
    assert packed["caption_shape"] == (3, 3)
    assert pack_captions([[], []], 0, 0, 9)["input_ids"].tolist() == [[9] * 8] * 2
    assert pack_captions([], 0, 0, 0)["input_ids"].shape == (0, 8)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(0, 50256), max_size=12), max_size=6), min_size=1, max_size=5),
    st.sampled_from([(50256, 50256, 50256), (1, 2, 0), (101, 102, 0)]),
)
def test_packing_then_unpacking_gives_the_captions_back(rows, ids) -> None:
    start, end, pad = ids
    items = [item(str(k), captions) for k, captions in enumerate(rows)]
    batch = collate(items, TRANSFORM, start, end, pad)
    assert unpack(batch) == rows
    assert batch.num_tokens == sum(len(caption) + 1 for row in rows for caption in row)
    real = batch.caption_index >= 0
    assert torch.equal(batch.labels != -100, real)
    assert torch.equal(batch.input_ids[~real], torch.full_like(batch.input_ids[~real], pad))
    starts = batch.position_ids.eq(0) & real
    assert batch.input_ids[starts].eq(start).all()
    # What a position is to predict is what the next one is given, up to the end of its caption.
    inside = real[:, 1:] & batch.caption_index[:, 1:].eq(batch.caption_index[:, :-1])
    assert torch.equal(batch.labels[:, :-1][inside], batch.input_ids[:, 1:][inside])


@pytest.fixture
def exact(monkeypatch):
    """No padding rows."""
    monkeypatch.setattr(module, "ROW_MULTIPLE", 1)
    monkeypatch.setattr(module, "WIDTH_MULTIPLE", 1)


def test_equal_prefixes_have_one_row(exact):
    """Captions s a b and s a c of one image: rows s, a, b, c; c attends to s and a, not b."""
    packed = pack_captions([[[1, 2], [1, 3]]], 9, 8, 0)
    prefixes, tokens = packed["prefixes"], packed["tokens"]
    assert packed["input_ids"][0, prefixes.token].tolist() == [9, 1, 2, 3]
    assert prefixes.row_of_token.tolist() == packed["expand"].tolist() == [0, 1, 2, 0, 1, 3]
    assert prefixes.mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    assert tokens.row_of_token.tolist() == tokens.grid_index.tolist() == list(range(6))


captions = st.lists(st.integers(0, 2), max_size=5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(captions, min_size=1, max_size=4), min_size=1, max_size=3))
def test_each_different_prefix_has_one_row_and_attends_to_itself_alone(rows):
    packed = pack_captions(rows, 9, 8, 7)
    prefixes, ids = packed["prefixes"], packed["input_ids"].flatten()
    prefix_ids = [
        (image, (9, *caption)[: end + 1])
        for image, row in enumerate(rows)
        for caption in row
        for end in range(len(caption) + 1)
    ]
    held = prefixes.row_of_token.tolist()
    row_of = dict(zip(prefix_ids, held, strict=True))
    assert [row_of[prefix] for prefix in prefix_ids] == held
    assert len(set(row_of.values())) == len(row_of)
    assert torch.equal(ids[prefixes.token[prefixes.row_of_token]], ids[packed["token_index"]])

    images, _, width, _ = prefixes.mask.shape
    assert width % module.WIDTH_MULTIPLE == 0
    assert len(prefixes.token) in (images * width, -(-len(row_of) // module.ROW_MULTIPLE) * module.ROW_MULTIPLE)
    index = torch.arange(images * width) if prefixes.grid_index is None else prefixes.grid_index
    attended = prefixes.mask[:, 0].flatten(0, 1)[index].sum(1)
    assert all(attended[row] == len(tokens) for (_, tokens), row in row_of.items())


def test_many_captions_of_one_image_go_into_several_rows_in_linear_work():
    """300 captions among images with 2: rows of one image never grow to the square of its tokens."""
    many = [[[k, k + 1, *range(10)] for k in range(300)], [[1], [2]], [[3]]]
    packed = pack_captions(many, 9, 8, 7)
    rows, width = packed["input_ids"].shape
    assert width <= module.MAX_ROW_TOKENS
    assert packed["row_image"].tolist() == [0] * (rows - 2) + [1, 2]
    assert rows * width < 2 * 300 * 13
    assert packed["prefixes"].mask.numel() < 300 * 13 * module.MAX_ROW_TOKENS * 2
    assert unpack(batch_of([item(str(k), row) for k, row in enumerate(many)])) == many


def test_pixels_and_features_are_stacked() -> None:
    batch = batch_of([item("a", [[1]], 0), item("b", [[2]], 255)])
    assert batch.features is None
    assert (batch.pixel_values.shape, batch.pixel_values.dtype) == ((2, 3, 2, 4), torch.float32)
    assert torch.allclose(batch.pixel_values, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))
    assert batch.references == [["a 0"], ["b 0"]]
    items = [item(name, [[1]], None, features=torch.full((5, 6), float(k))) for k, name in enumerate("ab")]
    assert batch_of(items).pixel_values is None
    assert batch_of(items).features.shape == (2, 5, 6)


def test_an_item_without_an_image_only_adds_to_unreadable() -> None:
    skipped = CaptionItem("", [], [], unreadable={"x.jpg": "x.jpg: no such file"})
    batch = batch_of([item("a", [[1]]), skipped])
    assert (batch.image_ids, batch.unreadable) == (["a"], {"x.jpg": "x.jpg: no such file"})
    assert len(batch.pixel_values) == len(batch) == 1
    assert (len(batch_of([skipped])), batch_of([skipped]).pixel_values) == (0, None)


def test_a_batch_moves_and_is_pinned_with_all_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of([item("a", [[1]])])
    batch.features = torch.ones(1, 2, 3)
    copied = batch.to("meta")
    tensors = [copied.input_ids, copied.labels, copied.features, copied.tokens.mask, copied.prefixes.token]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.input_ids.device.type == "cpu"
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    assert isinstance(batch.pin_memory(), CaptionBatch)
    assert len(pinned) >= 5 + 3 + 3
