"""What the bootstrap resamples gives the scores of the whole set again."""

import numpy as np
import pytest

from src.metrics.coco import coco_scores

CANDIDATES = ["a dog runs over the grass", "two men on a bench", "", "a cat"]
REFERENCES = [
    ["a dog is running over the grass", "a dog"],
    ["two men sit on a bench"],
    ["a child"],
    ["a cat sleeps"],
]


def test_statistics_of_all_images_give_the_corpus_scores():
    scores = coco_scores(CANDIDATES, REFERENCES)
    assert set(scores.corpus) == set(scores.statistics) == set(scores.per_image)
    for name, (per_image, combine) in scores.statistics.items():
        again = combine(per_image.sum(axis=0, keepdims=True))
        assert again[0] == pytest.approx(scores.corpus[name], rel=1e-6, abs=1e-12), name


def test_bleu_counts_of_one_image_give_its_scores():
    scores = coco_scores(CANDIDATES, REFERENCES)
    for name in ("bleu_1", "bleu_4"):
        per_image, combine = scores.statistics[name]
        assert combine(per_image) == pytest.approx(scores.per_image[name], rel=1e-6, abs=1e-9), name


def test_references_without_words_score_nothing():
    scores = coco_scores(["a dog", "a cat"], [[""], [" "]])
    assert scores.corpus["cider_d"] == 0
    assert np.isfinite(list(scores.corpus.values())).all()
