"""Rows without padding, and equal beginnings held once."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.collate import pack_captions
from src.models.packed_rows import merge_prefixes, token_rows


def test_rows_leave_the_grid_and_come_back():
    layout = token_rows(torch.tensor([[0, 0, -1], [0, 1, 1]]))
    flat = torch.arange(1.0, 6)[:, None]
    assert layout.grid == (2, 3)
    assert layout.pad_with_zeros(flat)[..., 0].tolist() == [[1, 2, 0], [3, 4, 5]]
    assert torch.equal(layout.flatten(layout.pad(flat)), flat)


def test_a_full_grid_is_only_viewed():
    layout = token_rows(torch.tensor([[0, 0, 1], [0, 1, 1]]))
    flat = torch.randn(6, 2)
    assert layout.pad(flat).data_ptr() == flat.data_ptr()
    assert layout.flatten(layout.pad_with_zeros(flat)).data_ptr() == flat.data_ptr()


def test_equal_beginnings_by_hand():
    """Captions s a b and s a c of one image: rows s, a, b, c; c sees s and a, not b."""
    ids = torch.tensor([[9, 1, 2, 9, 1, 3, 0]])
    merged = merge_prefixes(ids, torch.tensor([[0, 0, 0, 1, 1, 1, -1]]))
    assert ids[0, merged.first].tolist() == [9, 1, 2, 3]
    assert merged.row_of_token.tolist() == [0, 1, 2, 0, 1, 3]
    assert merged.rows.mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


words = st.lists(st.integers(0, 2), max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_row_for_each_different_beginning(rows):
    grids = pack_captions(rows, 9, 8, 7)
    merged = merge_prefixes(grids["input_ids"], grids["caption_index"])
    beginnings = [
        (image, (9, *caption)[: end + 1])
        for image, row in enumerate(rows)
        for caption in row
        for end in range(len(caption) + 1)
    ]
    number = {beginning: row for row, beginning in enumerate(dict.fromkeys(beginnings))}
    assert merged.row_of_token.tolist() == [number[beginning] for beginning in beginnings]

    seen = merged.rows.mask[:, 0].int()  # (B,T,T)
    sizes = merged.rows.flatten(seen).sum(1)
    assert sizes.tolist() == [len(tokens) for _, tokens in number]  # a row sees its beginning and no more
