"""The reward is CIDEr-D with the end of a caption as a word."""

import numpy as np
import pytest

from src.datamodule.caption_table import CaptionedImage
from src.metrics.cider import CiderReward
from src.metrics.ptb_tokenizer import ptb_tokenize

TEXTS = {
    "x": ("A dog runs over the grass.", "a brown dog is running"),
    "y": ("Two men sit on a bench.",),
    "z": ("A man's cat, asleep.", "a cat"),
}
CANDIDATES = {
    "x": ["a dog runs over the grass", "a dog runs over a"],
    "y": ["two men on a", "Two men sit on a bench."],
    "z": ["a cat", ""],
}
ENDED = [[True, False], [True, True], [False, True]]


def test_it_equals_the_reference_scorer_with_the_end_as_a_word():
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    reward = CiderReward([CaptionedImage(name, "", texts, name) for name, texts in TEXTS.items()])
    flat = ([text for texts in CANDIDATES.values() for text in texts], [end for pair in ENDED for end in pair])
    found = reward(list(TEXTS), *flat)
    assert found.shape == (3, 2)
    for k in range(2):
        scorer = CiderScorer()
        for (name, texts), ended in zip(TEXTS.items(), ENDED, strict=True):
            (candidate,) = ptb_tokenize([CANDIDATES[name][k]])
            scorer += (candidate + " EOS" * ended[k], [f"{text} EOS" for text in ptb_tokenize(texts)])
        assert found[:, k] == pytest.approx(scorer.compute_score()[1], abs=1e-9)


def test_document_frequencies_are_those_of_the_images_given_whatever_is_scored():
    images = [CaptionedImage(name, "", texts, name) for name, texts in TEXTS.items()]
    reward = CiderReward(images)
    (alone,) = reward(["y"], CANDIDATES["y"], [True, True])
    batch = reward(["z", "y"], CANDIDATES["z"] + CANDIDATES["y"], [True] * 4)
    assert np.array_equal(alone, batch[1])
    assert alone[1] > alone[0] > 0
    assert CiderReward.signature(5) == "STANDARD_wInit+Cider-D[n4,s6.0]+average[nspi5]+1.0.0"
