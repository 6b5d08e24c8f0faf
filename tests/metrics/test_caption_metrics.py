"""`CaptionMetrics` is an `evaluate` metric that needs neither network nor a cache folder."""

import subprocess
import sys

import pytest

from src.metrics.scorer import CaptionScorer
from src.utils.errors import UserError

CAPTIONS = ["a dog runs.", "two cats"]
TEXTS = [["A dog is running.", "the dog"], ["Two cats sleep."]]


@pytest.fixture(scope="module")
def metric():
    from src.metrics import CaptionMetrics

    return CaptionMetrics(tokenizer="ptb", bootstrap_samples=50)


def test_is_an_evaluate_metric_and_gives_the_scores_of_the_scorer(metric):
    import evaluate

    assert isinstance(metric, evaluate.Metric)
    scores = metric.compute(predictions=CAPTIONS, references=TEXTS)
    corpus = CaptionScorer().score(["0", "1"], CAPTIONS, TEXTS, intervals=False).corpus
    assert scores == corpus | {"n": 2, "references_per_image": 1.5, "tokenizer": "ptb"}
    assert metric.features.keys() == {"predictions", "references"}


def test_mappings_are_joined_by_image_id(metric):
    listed = metric.compute(predictions=CAPTIONS, references=TEXTS)
    predictions = {"a.jpg": CAPTIONS[0], "b.jpg": CAPTIONS[1]}
    references = {"b.jpg": TEXTS[1], "a.jpg": TEXTS[0]}
    assert metric.compute(predictions=predictions, references=references) == listed
    assert listed["bleu_4"] < 0.5
    with pytest.raises(UserError, match="differ in image ids"):
        metric.compute(predictions=predictions, references={"a.jpg": TEXTS[0], "c.jpg": TEXTS[1]})


def test_any_iterables_are_taken(metric):
    listed = metric.compute(predictions=CAPTIONS, references=TEXTS)
    generated = metric.compute(
        predictions=(text for text in CAPTIONS), references=iter([iter(texts) for texts in TEXTS])
    )
    assert generated == listed


def test_batches_add_up_and_are_scored_once(metric):
    whole = metric.compute(predictions=CAPTIONS, references=TEXTS)
    metric.add_batch(predictions=CAPTIONS[:1], references=TEXTS[:1])
    metric.add_batch(predictions=[], references=[])
    metric.add(prediction=CAPTIONS[1], reference=TEXTS[1][0])  # a single reference needs no list
    assert metric.compute() == whole
    with pytest.raises(UserError, match="no caption to score"):
        metric.compute()


def test_lone_surrogates_are_no_characters(metric):
    clean = metric.compute(predictions=CAPTIONS, references=TEXTS)
    assert metric.compute(predictions=["a dog \ud83druns.", "two cats"], references=TEXTS) == clean


def test_intervals_on_request(metric):
    scores = metric.compute(predictions=CAPTIONS, references=TEXTS, intervals=True)
    assert scores["cider_d_low"] <= scores["cider_d"] <= scores["cider_d_high"]


@pytest.mark.parametrize(
    ("captions", "texts", "message"),
    [
        (["a"], [], "1 predictions and 0 references"),
        (["a"], None, "1 predictions and no list of references"),
        (None, [["a"]], "no list of predictions and 1 references"),
        ({"a": "a"}, [["a"]], "expected two equal lists"),
        ([], [], "no caption to score"),
        ([3], [["a"]], "not a string"),
        (["a"], [[None]], "not a string"),
        (["a"], [[]], "no list of references"),
        (["a"], [None], "no list of references"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(metric, captions, texts, message):
    with pytest.raises(UserError, match=message):
        metric.compute(predictions=captions, references=texts)
    with pytest.raises(UserError, match="no caption to score"):
        metric.compute()


def test_tokenizer_is_chosen_and_an_unknown_one_is_refused():
    from src.metrics import CaptionMetrics

    scores = CaptionMetrics("whitespace").compute(predictions=["A dog ."], references=[["a dog ."]])
    assert scores["bleu_1"] == pytest.approx(2 / 3)
    with pytest.raises(UserError, match=r"metrics.tokenizer='java'"):
        CaptionMetrics(tokenizer="java")


def test_writes_nothing(tmp_path, monkeypatch):
    from src.metrics import CaptionMetrics

    monkeypatch.chdir(tmp_path)
    CaptionMetrics(cache_dir=str(tmp_path / "cache")).compute(predictions=CAPTIONS, references=TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_scoring_imports_no_torch(root):
    code = "import sys, src.metrics.scorer; sys.exit('torch' in sys.modules or 'evaluate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
