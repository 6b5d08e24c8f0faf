"""Published scores come out; odd input has a defined result or a clear error."""

import csv
import json
import logging
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.metrics import scorer as scoring
from src.metrics.java_scorers import JavaScorerFailed
from src.metrics.ptb_tokenizer import ptb_tokenize
from src.metrics.scorer import CaptionScorer
from src.utils.errors import UserError

NAMES = {f"Bleu_{n}": f"bleu_{n}" for n in range(1, 5)} | {"ROUGE_L": "rouge_l", "CIDEr": "cider_d"}
IMAGES = (
    ["1.jpg", "2.jpg", "3.jpg"],
    ["A dog runs over grass.", "Two men sit on a bench.", "A child, smiling."],
    [
        ["A dog is running on the grass.", "The brown dog runs."],
        ["Two men are sitting on a bench.", "Men on a bench"],
        ["A small child smiles.", "The child is smiling at the camera."],
    ],
)


def score(ids, candidates, references, **options):
    return CaptionScorer(**options).score(ids, candidates, references)


def published(shared_data, name):
    return json.loads((shared_data / "metric_vectors" / name).read_text(encoding="utf-8"))


def assert_published(expected, candidates, references, tolerance, tokenizer):
    ids = list(references)
    captions = [candidates[i] for i in ids]
    found = CaptionScorer(tokenizer).score(ids, captions, list(references.values()), intervals=False)
    for key, own in NAMES.items():
        assert found.corpus[own] == pytest.approx(expected[key], abs=tolerance), key


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("01_nlgeval.json", 1e-6), ("04_mrgrl_template_382.json", 1e-9), ("05_mrgrl_qwen_beam3_382.json", 1e-9)],
)
def test_published_scores_of_tokenized_text(shared_data, name, tolerance):
    vector = published(shared_data, name)
    assert_published(vector["expected"], vector["hyps"], vector["refs"], tolerance, "whitespace")
    for single in vector.get("individual", []):
        assert_published(single["expected"], {"a": single["hyp"]}, {"a": single["refs"]}, 1e-6, "whitespace")


@pytest.mark.parametrize("which", ["good", "bad"])
def test_published_scores_of_raw_text(shared_data, which):
    vector = published(shared_data, "02_clipscore_example.json")
    assert_published(vector[which]["expected"], vector[which]["hyps"], vector["refs"], 5.01e-5, "ptb")


def test_figures_of_the_original_project(shared_data):
    with (shared_data / "published_predictions_100_rows.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {row["image"]: row["generated"] for row in rows}
    texts = [[row["reference"] for row in rows if row["image"] == image] for image in found]
    corpus = score(list(found), list(found.values()), texts, original=True).corpus
    assert corpus["bleu_bigram"] == pytest.approx(0.060595046996829, abs=1e-15)
    rouge = {"1_r": 0.258267, "2_r": 0.072256, "l_r": 0.249378, "1_p": 0.422222, "2_p": 0.111515, "l_p": 0.407222}
    rouge |= {"1_f": 0.316515, "2_f": 0.084299, "l_f": 0.305385}
    assert {name: corpus[f"rouge_{name}"] for name in rouge} == pytest.approx(rouge, abs=5.01e-7)


def test_bleu_of_each_image_is_that_of_the_reference_scorer():
    from pycocoevalcap.bleu.bleu import Bleu

    ids, candidates, texts = IMAGES
    references = {i: ptb_tokenize(own) for i, own in zip(ids, texts, strict=True)}
    captions = {i: [line] for i, line in zip(ids, ptb_tokenize(candidates), strict=True)}
    bleu = Bleu(4).compute_score(references, captions, verbose=0)[1]
    found = score(*IMAGES).per_image
    assert [[row[f"bleu_{n + 1}"] for row in found] for n in range(4)] == bleu


def test_corpus_means_and_intervals_belong_together(capsys):
    scores = score(*IMAGES, original=True)
    assert capsys.readouterr() == ("", "")
    assert scores.corpus["cider_d"] == pytest.approx(sum(row["cider_d"] for row in scores.per_image) / 3)
    assert set(scores.intervals) == set(scores.corpus) - {"distinct_fraction", "bleu_bigram"}
    for name, (low, high) in scores.intervals.items():
        assert low <= scores.corpus[name] <= high, name
    assert all(isinstance(value, float) for value in scores.corpus.values())
    assert json.loads(json.dumps(scores.per_image)) == scores.per_image
    low, high = scores.intervals["cider_d"]
    flat = scores.flat("test/")
    assert (flat["test/cider_d_low"], flat["test/cider_d_high"]) == (low, high)


def test_seed_and_samples_decide_the_intervals_alone():
    assert score(*IMAGES, seed=1) == score(*IMAGES, seed=1)
    one, other = (score(*IMAGES, bootstrap_samples=20, seed=seed) for seed in (1, 2))
    assert one.corpus == other.corpus
    assert one.intervals != other.intervals
    assert score(*IMAGES, bootstrap_samples=0).intervals == {}
    assert CaptionScorer().score(*IMAGES, intervals=False).intervals == {}


def test_one_image_one_reference():
    scores = score(["a"], ["a dog runs in the park"], [["a dog runs in the park"]])
    assert scores.corpus["bleu_4"] == pytest.approx(1)
    assert scores.corpus["rouge_l"] == 1
    assert scores.corpus["cider_d"] == 0  # the document frequencies of one image say nothing
    assert scores.intervals["bleu_4"][0] == scores.intervals["bleu_4"][1]


@pytest.mark.parametrize("empty", ["", "  ", "...", "\n", "\u200b"])
def test_an_empty_candidate_scores_nothing(empty):
    first, second = score(["a", "b"], [empty, "a dog"], [["a cat"], ["a dog"]], original=True).per_image
    assert first["cider_d"] == first["rouge_l"] == first["rouge_1_f"] == 0
    assert first["bleu_1"] == pytest.approx(0)
    assert second["rouge_l"] == 1


@given(st.lists(st.tuples(st.text(), st.lists(st.text(), min_size=1, max_size=3)), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_any_text_has_finite_scores(images):
    ids = [str(i) for i in range(len(images))]
    scores = score(ids, [text for text, _ in images], [own for _, own in images], bootstrap_samples=5, original=True)
    values = [*scores.corpus.values(), *(value for row in scores.per_image for value in row.values())]
    values += [bound for bounds in scores.intervals.values() for bound in bounds]
    assert all(math.isfinite(value) and value >= 0 for value in values)


@pytest.mark.parametrize(
    ("ids", "candidates", "texts", "message"),
    [
        (["a"], ["x", "y"], [["z"]], "1 images, 2 captions and 1 lists"),
        (["a"], ["x"], [], "1 images, 1 captions and 0 lists"),
        ([], [], [], "no caption to score"),
        (["a", "a"], ["x", "y"], [["z"], ["z"]], "image 'a' occurs twice"),
        (["a"], ["x"], [[]], "no list of references"),
        (["a"], ["x"], ["text"], "no list of references"),
        (["a"], [None], [["z"]], "not a string"),
        (["a"], ["x"], [["z", 3]], "not a string"),
    ],
)
def test_input_without_a_score_is_refused(ids, candidates, texts, message):
    with pytest.raises(UserError, match=message):
        score(ids, candidates, texts)


@pytest.mark.parametrize(
    "setting", [{"cider_df": "no.json"}, {"tokenizer": "java"}, {"bootstrap_samples": -1}, {"spice": "yes"}]
)
def test_wrong_settings_are_refused(setting):
    [(name, value)] = setting.items()
    with pytest.raises(UserError, match=f"metrics.{name}={value!r}.*; expected"):
        CaptionScorer(**setting)


def test_java_scorers_are_looked_for_when_made(monkeypatch, caplog):
    monkeypatch.setattr(scoring, "skip_reason", lambda name, setting: "no java")
    with caplog.at_level(logging.INFO, logger="src.metrics.scorer"):
        scorer = CaptionScorer(meteor="auto", spice="auto")
    assert "METEOR is skipped: no java" in caplog.text
    assert scorer.score(*IMAGES).skipped == dict.fromkeys(("meteor", "spice"), "no java")
    assert CaptionScorer().skipped == {}


def test_a_java_scorer_that_fails_costs_its_score_only(monkeypatch):
    def fail(*arguments):
        raise JavaScorerFailed("no result within 1 seconds")

    monkeypatch.setattr(scoring, "skip_reason", lambda name, setting: None)
    monkeypatch.setattr(scoring, "run", fail)
    scores = score(*IMAGES, meteor="auto")
    assert scores.skipped == {"meteor": "no result within 1 seconds"}
    assert "meteor" not in scores.corpus
    assert "cider_d" in scores.corpus
    fast = CaptionScorer(meteor=True).score(*IMAGES, intervals=False)
    assert fast.skipped == {}  # validation does not wait for Java


def test_original_scores_of_very_long_texts_are_skipped():
    scores = CaptionScorer(original=True).score(["a", "b"], ["word here", "b"], [["word " * 20_000], ["b c"]])
    assert "original" in scores.skipped
    assert "rouge_l" in scores.corpus
    assert "rouge_1_f" not in scores.corpus
