"""A collapsed captioner shows."""

import pytest

from src.metrics.text_statistics import text_statistics


def test_shares_and_length():
    corpus = text_statistics(["a b c", "a b c", "a b a b a b", ""]).corpus
    assert corpus["distinct_share"] == 0.75
    assert corpus["mean_length"] == 3
    assert corpus["repeated_ngram_share"] == pytest.approx(2 / 6)  # aba bab (aba) (bab), abc, abc


def test_short_captions_have_nothing_to_repeat():
    assert text_statistics(["a", "b c"]).corpus["repeated_ngram_share"] == 0


def test_statistics_give_the_corpus_values():
    parts = text_statistics(["a b a b a", "a dog runs here"])
    for name, (per_image, combine) in parts.statistics.items():
        assert combine(per_image.sum(axis=0, keepdims=True))[0] == pytest.approx(parts.corpus[name])
