"""`CaptionMetrics` is an `evaluate` metric that needs neither network nor a cache folder."""

import subprocess
import sys

import pytest

from src.metrics.scorer import score
from src.utils.errors import UserError

FOUND = ["a dog runs.", "two cats"]
TEXTS = [["A dog is running.", "the dog"], ["Two cats sleep."]]


@pytest.fixture(scope="module")
def metric():
    from src.metrics import CaptionMetrics

    return CaptionMetrics(tokenizer="ptb", bootstrap_samples=50)


def test_is_an_evaluate_metric_and_gives_the_scores(metric):
    import evaluate

    assert isinstance(metric, evaluate.Metric)
    found = metric.compute(predictions=FOUND, references=TEXTS)
    corpus = score(["0", "1"], FOUND, TEXTS, intervals=False).corpus
    assert found == corpus | {"n": 2, "references_per_image": 1.5, "tokenizer": "ptb"}


def test_batches_add_up_and_are_used_once(metric):
    whole = metric.compute(predictions=FOUND, references=TEXTS)
    metric.add_batch(predictions=FOUND[:1], references=TEXTS[:1])
    metric.add_batch(predictions=[], references=[])
    metric.add(prediction=FOUND[1], references=TEXTS[1])
    assert metric.compute() == whole
    with pytest.raises(UserError, match="no caption to score"):
        metric.compute()


def test_intervals_on_request(metric):
    found = metric.compute(predictions=FOUND, references=TEXTS, intervals=True)
    assert found["cider_d_low"] <= found["cider_d"] <= found["cider_d_high"]


def test_a_single_reference_needs_no_list(metric):
    listed = metric.compute(predictions=FOUND, references=[["a dog"], ["a cat"]])
    assert metric.compute(predictions=FOUND, references=["a dog", "a cat"]) == listed


def test_per_image(metric):
    rows = metric.per_image(FOUND, TEXTS)
    assert rows == score(["0", "1"], FOUND, TEXTS).per_image
    assert metric.per_image(FOUND, ["a dog", "a cat"])[0]["rouge_l"] > 0


def test_whitespace_tokens():
    from src.metrics import CaptionMetrics

    found = CaptionMetrics("whitespace").compute(predictions=["A dog ."], references=[["a dog ."]])
    assert found["bleu_1"] == pytest.approx(2 / 3)
    assert found["tokenizer"] == "whitespace"


@pytest.mark.parametrize(
    ("found", "texts", "message"),
    [
        (["a"], [], "1 predictions and 0 references"),
        (["a"], None, "1 predictions and no references"),
        (None, [["a"]], "no predictions and 1 references"),
        ([], [], "no caption to score"),
        ([3], [["a"]], "no text"),
        (["a"], [[None]], "no text"),
        (["a"], [[]], "no list of references"),
    ],
)
def test_unfit_input_is_refused(metric, found, texts, message):
    with pytest.raises(UserError, match=message):
        metric.compute(predictions=found, references=texts)


def test_half_an_example_is_refused(metric):
    with pytest.raises(UserError, match="a prediction or its references are missing"):
        metric.add(prediction="a dog")


def test_unknown_tokenizer_is_refused():
    from src.metrics import CaptionMetrics

    with pytest.raises(UserError, match=r"metrics.tokenizer='java'"):
        CaptionMetrics(tokenizer="java")


def test_writes_nothing(tmp_path, monkeypatch):
    from src.metrics import CaptionMetrics

    monkeypatch.chdir(tmp_path)
    CaptionMetrics(cache_dir=str(tmp_path / "cache")).compute(predictions=FOUND, references=TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_keeps_files_where_asked(tmp_path):
    from src.metrics import CaptionMetrics

    kept = CaptionMetrics(cache_dir=str(tmp_path), keep_in_memory=False)
    assert kept.compute(predictions=FOUND, references=TEXTS)["n"] == 2


def test_scoring_loads_no_torch(root):
    code = "import sys, src.metrics.scorer; sys.exit('torch' in sys.modules or 'evaluate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_the_package_offers_nothing_else():
    import src.metrics

    with pytest.raises(AttributeError, match="has no attribute 'Captions'"):
        src.metrics.Captions  # noqa: B018
