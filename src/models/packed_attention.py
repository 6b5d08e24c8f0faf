"""Which token may look at which, when several captions of an image share one decoder row.

B images, T packed tokens of an image.
"""

from torch import Tensor


def packing_mask(caption_index: Tensor) -> Tensor:
    """Block-diagonal causal mask of packed captions.

    caption_index: i64 (B,T), the number of the caption that a token belongs to, -1 on padding.
    Returns: bool (B,1,T,T), True where the row's token may attend to the column's: the same caption, not later.
    A padding token attends to itself alone, so that no row of the softmax is empty.

    Example: captions of 2 and 1 tokens and one pad, [0, 0, 1, -1], give the rows 1000, 1100, 0010, 0001.
    """
    length = caption_index.shape[1]
    same = caption_index[:, :, None] == caption_index[:, None, :]  # (B,T,T)
    visible = (same & (caption_index >= 0)[:, None, :]).tril()
    visible.diagonal(dim1=1, dim2=2).fill_(True)
    return visible.view(-1, 1, length, length)
