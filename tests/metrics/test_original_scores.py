"""The original's figures by nltk and rouge, per pair of candidate and reference."""

import sys

import pytest

from src.metrics.original_scores import ROUGE_KEYS, original_scores

CANDIDATES = ["a man laying on a bench", "people sitting", "a"]
REFERENCES = [
    ["a man sleeping on a bench .", "A man lays on the bench"],
    ["People sitting in a room"],
    ["a dog"],
]


def test_pairs_are_counted_one_by_one():
    from rouge import Rouge

    found = [CANDIDATES[0], CANDIDATES[0], CANDIDATES[1], CANDIDATES[2]]
    wanted = [text for texts in REFERENCES for text in texts]
    average = Rouge().get_scores(found, wanted, avg=True)
    corpus = original_scores(CANDIDATES, REFERENCES).corpus
    for key in ROUGE_KEYS:
        _, kind, part = key.split("_")
        assert corpus[key] == pytest.approx(average[f"rouge-{kind}"][part])


@pytest.mark.parametrize(
    ("candidates", "references"),
    [
        (CANDIDATES, REFERENCES),
        (["dog a", "b c"], [["a cat"], ["b d"]]),  # no bigram in common: smoothed
        (["a"], [["a b"]]),  # too short for smoothing
        (["x y"], [["a b"]]),  # no word in common
    ],
)
def test_statistics_of_all_images_give_the_corpus_scores(candidates, references):
    scores = original_scores(candidates, references)
    for name, (per_image, combine) in scores.statistics.items():
        again = combine(per_image.sum(axis=0, keepdims=True))
        assert again[0] == pytest.approx(scores.corpus[name]), name


def test_empty_sides_score_nothing():
    scores = original_scores(["", "a", "..."], [["a"], [""], ["a"]])
    assert all(value == 0 for value in scores.corpus.values())


def test_recursion_limit_is_left_as_it_was():
    before = sys.getrecursionlimit()
    original_scores(["word " * 800], [["word " * 800]])
    assert sys.getrecursionlimit() == before
