"""Scores equal the reference implementations', and their statistics give the corpus scores again."""

import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.metrics.coco import coco_scores, lcs_length, rouge_l, text_statistics
from src.metrics.original_scores import ROUGE_KEYS, original_scores

CANDIDATES = ["a dog runs over the grass", "two men on a bench", "", "a cat"]
REFERENCES = [
    ["a dog is running over the grass", "a dog"],
    ["two men sit on a bench"],
    ["a child"],
    ["a cat sleeps"],
]
TEXT = st.text(alphabet="ab .", max_size=24)
LONG = " ".join(f"w{i * i % 997}" for i in range(20_000))


@pytest.mark.parametrize(
    ("compute", "candidates", "references"),
    [
        (coco_scores, CANDIDATES, REFERENCES),
        (lambda found, _: text_statistics(found), CANDIDATES, REFERENCES),
        (original_scores, CANDIDATES, REFERENCES),
        (original_scores, ["dog a", "b c"], [["a cat"], ["b d"]]),  # no bigram in common: smoothed
        (original_scores, ["a"], [["a b"]]),  # too short for smoothing
        (original_scores, ["x y"], [["a b"]]),  # no word in common
    ],
)
def test_statistics_of_all_images_give_the_corpus_scores(compute, candidates, references):
    scores = compute(candidates, references)
    assert set(scores.statistics) == set(scores.corpus) - {"distinct_fraction", "bleu_bigram"}
    for name, (per_image, combine) in scores.statistics.items():
        again = combine(per_image.sum(axis=0, keepdims=True))
        assert again[0] == pytest.approx(scores.corpus[name], rel=1e-6, abs=1e-12), name


def test_bleu_counts_of_one_image_give_its_scores():
    scores = coco_scores(CANDIDATES, REFERENCES)
    for name in ("bleu_1", "bleu_4"):
        per_image, combine = scores.statistics[name]
        assert combine(per_image) == pytest.approx(scores.per_image[name], rel=1e-6, abs=1e-9), name


def test_references_without_words_score_zero():
    scores = coco_scores(["a dog", "a cat"], [[""], [" "]])
    assert scores.corpus["cider_d"] == 0
    assert np.isfinite(list(scores.corpus.values())).all()


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3))
def test_rouge_l_equals_pycocoevalcap(candidate, references):
    from pycocoevalcap.rouge.rouge import Rouge

    assert rouge_l(candidate, references) == Rouge().calc_score([candidate], references)


@given(TEXT, TEXT)
def test_original_rouge_equals_the_rouge_package(candidate, reference):
    rouge = pytest.importorskip("rouge")
    expected = dict.fromkeys(ROUGE_KEYS, 0.0)
    if candidate.strip(".") and reference.strip("."):
        scores = rouge.Rouge().get_scores(candidate, reference)[0]
        expected = {key: scores[f"rouge-{key.split('_')[1]}"][key[-1]] for key in ROUGE_KEYS}
    found = original_scores([candidate], [[reference]]).corpus
    assert {key: found[key] for key in ROUGE_KEYS} == expected


def test_rouge_l_of_20000_words_takes_linear_memory():
    tracemalloc.start()
    assert rouge_l(LONG, [LONG]) == 1
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert lcs_length(LONG.split(), LONG.split()[::-1]) < 20_000


def test_original_rouge_of_5000_words_needs_no_recursion_and_little_memory():
    limit, text = sys.getrecursionlimit(), " ".join(LONG.split()[:5000])
    tracemalloc.start()
    assert original_scores([text], [[text]]).corpus["rouge_l_r"] == 1
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert sys.getrecursionlimit() == limit


def test_original_scores_of_empty_texts_are_zero():
    assert not any(original_scores(["", "a", "..."], [["a"], [""], ["a"]]).corpus.values())


def test_degenerate_captions_show_in_text_statistics():
    corpus = text_statistics(["a b c", "a b c", "a b a b a b", ""]).corpus
    assert corpus["distinct_fraction"] == 0.75
    assert corpus["mean_length"] == 3
    assert corpus["repeated_ngram_fraction"] == pytest.approx(2 / 6)  # aba bab (aba) (bab), abc, abc
    assert text_statistics(["a", "b c"]).corpus["repeated_ngram_fraction"] == 0
