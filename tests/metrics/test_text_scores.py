"""Scores equal the reference implementations', and their statistics give the corpus scores again."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.metrics.text_scores import ORIGINAL_ROUGE, coco_scores, original_scores, rouge_l, text_statistics

CANDIDATES = ["a dog runs over the grass", "two men on a bench", "", "a cat"]
REFERENCES = [
    ["a dog is running over the grass", "a dog"],
    ["two men sit on a bench"],
    ["a child"],
    ["a cat sleeps"],
]
TEXT = st.text(alphabet="ab .", max_size=24)


@pytest.mark.parametrize(
    ("compute", "candidates", "references"),
    [
        (coco_scores, CANDIDATES, REFERENCES),
        (lambda found, _: text_statistics(found), CANDIDATES, REFERENCES),
        (original_scores, CANDIDATES, REFERENCES),
    ],
)
def test_statistics_of_all_images_give_the_corpus_scores(compute, candidates, references):
    scores = compute(candidates, references)
    assert set(scores.statistics) == set(scores.corpus) - {"distinct_fraction", "bleu_bigram"}
    for name, (per_image, combine) in scores.statistics.items():
        again = combine(per_image.sum(axis=0, keepdims=True))
        assert again[0] == pytest.approx(scores.corpus[name], rel=1e-6, abs=1e-12), name
        if name.startswith("bleu_"):
            assert combine(per_image) == pytest.approx(scores.per_image[name], rel=1e-6, abs=1e-9)


def test_references_without_words_score_zero():
    scores = coco_scores(["a dog", "a cat"], [[""], [" "]])
    assert scores.corpus["cider_d"] == 0
    assert np.isfinite(list(scores.corpus.values())).all()


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3))
@settings(max_examples=25)
def test_rouge_l_equals_pycocoevalcap(candidate, references):
    from pycocoevalcap.rouge.rouge import Rouge

    assert rouge_l(candidate, references) == Rouge().calc_score([candidate], references)


@given(TEXT, TEXT)
@settings(max_examples=25)
def test_original_rouge_equals_the_rouge_package(candidate, reference):
    from rouge import Rouge

    corpus = original_scores([candidate], [[reference]]).corpus
    expected = dict.fromkeys(ORIGINAL_ROUGE, 0.0)
    if candidate.strip(".") and reference.strip("."):
        scores = Rouge().get_scores(candidate, reference)[0]
        expected = {key: scores[f"rouge-{key.split('_')[1]}"][key[-1]] for key in ORIGINAL_ROUGE}
    assert {key: corpus[key] for key in ORIGINAL_ROUGE} == expected


def test_long_texts_need_little_memory_and_no_recursion():
    long = " ".join(f"w{i * i % 997}" for i in range(20_000))
    tracemalloc.start()
    assert rouge_l(long, [long]) == 1
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    corpus = original_scores(["word here"], [["word " * 3000]]).corpus
    assert 0 < corpus["rouge_l_r"] <= 1


def test_degenerate_captions_show_in_text_statistics():
    corpus = text_statistics(["a b c", "a b c", "a b a b a b", ""]).corpus
    assert corpus["distinct_fraction"] == 0.75
    assert corpus["mean_length"] == 3
    assert corpus["repeated_ngram_fraction"] == pytest.approx(2 / 6)  # aba bab (aba) (bab), abc, abc
    assert text_statistics(["a", "b c"]).corpus["repeated_ngram_fraction"] == 0
