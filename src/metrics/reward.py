"""The reward of self-critical training: CIDEr-D of sampled captions against the training references."""

from collections.abc import Sequence

import numpy as np

from src.datamodule.caption_table import CaptionedImage
from src.metrics.cider import ORDER, SIGMA, CiderD
from src.metrics.ptb_tokenizer import ptb_tokenize

EOS = " <eos>"  # a word of its own in references and in captions that ended


class CiderReward:
    """CIDEr-D, 0 to 10, with the document frequencies of the images given and the end of a caption as a word.

    Without that word captions that stop after "with a" score well, since their n-grams are frequent: Hu et al., 2023.
    """

    def __init__(self, images: Sequence[CaptionedImage]) -> None:
        lines = iter(ptb_tokenize([text for image in images for text in image.captions]))
        self.references = {image.image_id: [next(lines) + EOS for _ in image.captions] for image in images}
        self.cider = CiderD(list(self.references.values()))

    def __call__(self, image_ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool]) -> np.ndarray:
        """Score the K captions of each of B images, one image after another (B*K): (B,K).

        ended: whether a caption ended with EOS, and was not cut off.
        """
        texts = [text + EOS * end for text, end in zip(ptb_tokenize(captions), ended, strict=True)]
        per_image = np.reshape(texts, (len(image_ids), -1)).tolist()
        pairs = zip(per_image, (self.references[name] for name in image_ids), strict=True)
        return np.array([self.cider.score(*pair) for pair in pairs])

    @staticmethod
    def signature(num_samples: int) -> str:
        """Return what SacreEOS 1.0.0 (Hu et al., 2023) would name this reward and its baseline."""
        return f"STANDARD_wInit+Cider-D[n{ORDER},s{SIGMA}]+average[nspi{num_samples}]+1.0.0"
