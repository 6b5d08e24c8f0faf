"""Rows without padding, equal beginnings held once, and few shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.collate import pack_captions
from src.models.kernels import varlen as packed_rows
from src.models.kernels.varlen import PackedRows, deduplicate_prefixes, token_rows

PADDED, FULL = torch.tensor([[0, 0, -1], [0, 1, 1]]), torch.tensor([[0, 0, 1], [0, 1, 1]])


@pytest.fixture
def exact(monkeypatch):
    """No spare rows."""
    monkeypatch.setattr(packed_rows, "ROWS", 1)
    monkeypatch.setattr(packed_rows, "WIDTHS", 1)


def test_rows_leave_the_grid_and_come_back(exact):
    layout = token_rows(PADDED).rows
    flat = torch.arange(1.0, 6)[:, None]
    assert layout.grid == (2, 3)
    assert layout.pad_with_zeros(flat)[..., 0].tolist() == [[1, 2, 0], [3, 4, 5]]
    assert torch.equal(layout.flatten(layout.pad(flat)), flat)


def test_a_full_grid_is_only_viewed():
    layout = token_rows(FULL).rows
    flat = torch.randn(6, 2)
    assert layout.pad(flat).data_ptr() == flat.data_ptr()
    assert layout.flatten(layout.pad_with_zeros(flat)).data_ptr() == flat.data_ptr()


def test_spare_rows_make_a_multiple_or_fill_the_grid(monkeypatch):
    monkeypatch.setattr(packed_rows, "ROWS", 4)
    filled = token_rows(PADDED)  # 5 tokens, one empty place
    assert filled.rows == PackedRows(filled.rows.mask, None, None)
    assert filled.row_of_place[(PADDED >= 0).flatten()].tolist() == [0, 1, 3, 4, 5]
    # 5 tokens, 7 empty places
    some = token_rows(torch.tensor([[0, 0, -1, -1, -1, -1], [0, 1, 1, -1, -1, -1]]))
    assert some.rows.places is not None
    assert some.rows.places.tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    assert some.first.tolist() == [0, 1, 0, 0, 0, 6, 7, 8]


def test_equal_beginnings_by_hand(exact):
    """Captions s a b and s a c of one image: rows s, a, b, c; c sees s and a, not b."""
    ids = torch.tensor([[9, 1, 2, 9, 1, 3, 0]])
    merged = deduplicate_prefixes(ids, torch.tensor([[0, 0, 0, 1, 1, 1, -1]]))
    assert ids[0, merged.first].tolist() == [9, 1, 2, 3]
    assert merged.row_of_place[:6].tolist() == [0, 1, 2, 0, 1, 3]
    assert merged.rows.mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


words = st.lists(st.integers(0, 2), max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_row_for_each_different_beginning(rows):
    grids = pack_captions(rows, 9, 8, 7)
    ids, real = grids["input_ids"].flatten(), (grids["caption_index"] >= 0).flatten()
    merged = deduplicate_prefixes(grids["input_ids"], grids["caption_index"])
    beginnings = [
        (image, (9, *caption)[: end + 1])
        for image, row in enumerate(rows)
        for caption in row
        for end in range(len(caption) + 1)
    ]
    held = merged.row_of_place[real]
    row_of = dict(zip(beginnings, held.tolist(), strict=True))
    assert [row_of[beginning] for beginning in beginnings] == held.tolist()  # equal beginnings, one row
    assert len(set(row_of.values())) == len(row_of)  # different ones, each its own
    assert torch.equal(ids[merged.first[held]], ids[real])

    images, width = merged.rows.grid
    assert width % packed_rows.WIDTHS == 0
    assert len(merged.first) in (images * width, -(-len(row_of) // packed_rows.ROWS) * packed_rows.ROWS)
    seen = merged.rows.flatten(merged.rows.mask[:, 0].int())  # (N,T)
    for (_, tokens), row in row_of.items():
        assert seen[row].sum() == len(tokens)  # a row sees its beginning and no more
