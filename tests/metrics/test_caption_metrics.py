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
    from src.metrics.caption_metrics import CaptionMetrics

    return CaptionMetrics(tokenizer="ptb", bootstrap_samples=50)


@pytest.fixture
def whole(metric):
    """The scores of all captions at once."""
    return metric.compute(predictions=CAPTIONS, references=TEXTS)


def test_is_an_evaluate_metric_and_gives_the_scores_of_the_scorer(metric, whole):
    import evaluate

    assert isinstance(metric, evaluate.Metric)
    assert metric.features.keys() == {"predictions", "references"}
    corpus = CaptionScorer().score(["0", "1"], CAPTIONS, TEXTS, intervals=False).corpus
    assert whole == corpus | {"n": 2, "references_per_image": 1.5, "tokenizer": "ptb"}
    scores = metric.compute(predictions=CAPTIONS, references=TEXTS, intervals=True)
    assert scores["cider_d_low"] <= scores["cider_d"] <= scores["cider_d_high"]


def test_mappings_are_joined_by_image_id(metric, whole):
    predictions = {"a.jpg": CAPTIONS[0], "b.jpg": CAPTIONS[1]}
    references = {"b.jpg": TEXTS[1], "a.jpg": TEXTS[0]}
    assert metric.compute(predictions=predictions, references=references) == whole
    assert whole["bleu_4"] < 0.5
    with pytest.raises(UserError, match="differ in image ids"):
        metric.compute(predictions=predictions, references={"a.jpg": TEXTS[0], "c.jpg": TEXTS[1]})


def test_any_iterables_are_taken_and_batches_are_scored_once(metric, whole):
    iterables = (text for text in CAPTIONS), iter([iter(texts) for texts in TEXTS])
    assert metric.compute(predictions=iterables[0], references=iterables[1]) == whole
    metric.add_batch(predictions=CAPTIONS[:1], references=TEXTS[:1])
    metric.add_batch(predictions=[], references=[])
    metric.add(prediction=CAPTIONS[1], reference=TEXTS[1][0])  # a single reference needs no list
    assert metric.compute() == whole
    with pytest.raises(UserError, match="no caption to score"):
        metric.compute()


def test_lone_surrogates_are_no_characters(metric, whole):
    assert metric.compute(predictions=["a dog \ud83druns.", "two cats"], references=TEXTS) == whole


@pytest.mark.parametrize(
    ("captions", "texts", "message"),
    [
        (["a"], [], "1 predictions and 0 references"),
        (["a"], None, "1 predictions and 0 references"),
        ({"a": "a"}, [["a"]], "expected two equal lists"),
        ([], [], "no caption to score"),
        (["a"], [None], "no list of references"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(metric, captions, texts, message):
    with pytest.raises(UserError, match=message):
        metric.compute(predictions=captions, references=texts)
    with pytest.raises(UserError, match="no caption to score"):
        metric.compute()


def test_tokenizer_is_chosen_and_nothing_is_written(tmp_path, monkeypatch):
    from src.metrics.caption_metrics import CaptionMetrics

    monkeypatch.chdir(tmp_path)
    metric = CaptionMetrics("whitespace", cache_dir=str(tmp_path / "cache"))
    assert metric.compute(predictions=["A dog ."], references=[["a dog ."]])["bleu_1"] == pytest.approx(2 / 3)
    assert list(tmp_path.iterdir()) == []


def test_scoring_imports_no_torch(root):
    code = "import sys, src.metrics.scorer; sys.exit('torch' in sys.modules or 'evaluate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
