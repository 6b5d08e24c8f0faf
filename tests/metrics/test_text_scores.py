"""Scores equal the reference implementations', and their statistics give the corpus scores again."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.caption_table import CaptionedImage
from src.metrics.cider import CiderReward
from src.metrics.ptb_tokenizer import ptb_tokenize
from src.metrics.text_scores import (
    ORIGINAL_ROUGE,
    coco_scores,
    imageclef_rouge_1,
    original_scores,
    rouge_l,
    text_statistics,
)

CANDIDATES = ["a dog runs over the grass", "two men on a bench", "", "a cat"]
REFERENCES = [["a dog is running over the grass", "a dog"], ["two men sit on a bench"], ["a child"], ["a cat sleeps"]]
TEXT = st.text(alphabet="ab .", max_size=24)


@pytest.mark.parametrize("compute", [coco_scores, lambda found, _: text_statistics(found), original_scores])
def test_statistics_of_all_images_give_the_corpus_scores(compute):
    scores = compute(CANDIDATES, REFERENCES)
    without = {name for name, score in scores.items() if score.statistics is None}
    assert without == {"distinct_fraction", "bleu_bigram"} & set(scores)
    for name, (corpus, per_image, statistics, combine) in scores.items():
        if name not in without:
            assert combine(statistics.sum(axis=0, keepdims=True))[0] == pytest.approx(corpus, rel=1e-6, abs=1e-12)
        if name[-1].isdigit():  # BLEU
            assert combine(statistics) == pytest.approx(per_image, rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=4))
@settings(max_examples=25)
def test_cider_d_equals_pycocoevalcap(images):
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    scorer = CiderScorer()
    for candidate, texts in [("a", ["a"]), *images]:  # without any token it fails
        scorer += (candidate, texts)
    found = coco_scores(["a", *(one for one, _ in images)], [["a"], *(texts for _, texts in images)])
    assert found["cider_d"].per_image.tolist() == scorer.compute_score()[1].tolist()


def test_imageclef_cleans_texts_and_takes_the_best_reference():
    found = imageclef_rouge_1(["CT shows 12 nodules.", "", ""], [["X", "ct: 3 nodules!"], ["x"], ["."]])
    assert found.per_image.tolist() == [pytest.approx(6 / 7), 0, 0]  # ct shows number nodules; ct number nodules


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3))
@settings(max_examples=25)
def test_rouge_l_equals_pycocoevalcap(candidate, references):
    from pycocoevalcap.rouge.rouge import Rouge

    assert rouge_l(candidate, references) == Rouge().calc_score([candidate], references)


@given(TEXT, TEXT)
@settings(max_examples=25)
def test_original_rouge_equals_the_rouge_package(candidate, reference):
    from rouge import Rouge

    found = original_scores([candidate], [[reference]])
    expected = dict.fromkeys(ORIGINAL_ROUGE, 0.0)
    if candidate.strip(".") and reference.strip("."):
        scores = Rouge().get_scores(candidate, reference)[0]
        expected = {key: scores[f"rouge-{key.split('_')[1]}"][key[-1]] for key in ORIGINAL_ROUGE}
    assert {key: found[key].corpus for key in ORIGINAL_ROUGE} == expected


def test_long_texts_need_little_memory_and_no_recursion():
    long = " ".join(f"w{i * i % 997}" for i in range(20_000))
    tracemalloc.start()
    assert rouge_l(long, [long]) == 1
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert 0 < original_scores(["word here"], [["word " * 3000]])["rouge_l_r"].corpus <= 1


def test_degenerate_captions_show_in_text_statistics():
    found = {name: score.corpus for name, score in text_statistics(["a b c", "a b c", "a b a b a b", ""]).items()}
    # 3-grams: aba bab (aba) (bab), abc, abc
    assert found == {"distinct_fraction": 0.75, "mean_length": 3, "repeated_ngram_fraction": pytest.approx(2 / 6)}
    assert text_statistics(["a", "b c"])["repeated_ngram_fraction"].corpus == 0


# The reward of self-critical training

OWN_TEXTS = {
    "x": ("A dog runs over the grass.", "a brown dog is running"),
    "y": ("Two men sit on a bench.",),
    "z": ("A man's cat, asleep.", "a cat"),
}
SAMPLED = {
    "x": ["a dog runs over the grass", "a dog runs over a"],
    "y": ["two men on a", "Two men sit on a bench."],
    "z": ["a cat", ""],
}
ENDED = [[True, False], [True, True], [False, True]]


def test_it_equals_the_reference_scorer_with_the_end_as_a_word():
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    reward = CiderReward([CaptionedImage(name, "", texts, name) for name, texts in OWN_TEXTS.items()])
    flat = ([text for texts in SAMPLED.values() for text in texts], [end for pair in ENDED for end in pair])
    found = reward(list(OWN_TEXTS), *flat)
    assert found.shape == (3, 2)
    for k in range(2):
        scorer = CiderScorer()
        for (name, texts), ended in zip(OWN_TEXTS.items(), ENDED, strict=True):
            (candidate,) = ptb_tokenize([SAMPLED[name][k]])
            scorer += (candidate + " EOS" * ended[k], [f"{text} EOS" for text in ptb_tokenize(texts)])
        assert found[:, k] == pytest.approx(scorer.compute_score()[1], abs=1e-9)


def test_document_frequencies_are_those_of_the_images_given_whatever_is_scored():
    images = [CaptionedImage(name, "", texts, name) for name, texts in OWN_TEXTS.items()]
    reward = CiderReward(images)
    (alone,) = reward(["y"], SAMPLED["y"], [True, True])
    batch = reward(["z", "y"], SAMPLED["z"] + SAMPLED["y"], [True] * 4)
    assert np.array_equal(alone, batch[1])
    assert alone[1] > alone[0] > 0
    assert CiderReward.signature(5) == "STANDARD_wInit+Cider-D[n4,s6.0]+average[nspi5]+1.0.0"
