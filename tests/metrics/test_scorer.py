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
from src.metrics.scorer import CaptionScorer, Scores
from src.utils.errors import UserError

NAMES = {f"Bleu_{n}": f"bleu_{n}" for n in range(1, 5)} | {"ROUGE_L": "rouge_l", "CIDEr": "cider_d"}
IMAGES = {
    "1.jpg": ("A dog runs over grass.", ["A dog is running on the grass.", "The brown dog runs."]),
    "2.jpg": ("Two men sit on a bench.", ["Two men are sitting on a bench.", "Men on a bench"]),
    "3.jpg": ("A child, smiling.", ["A small child smiles.", "The child is smiling at the camera."]),
}


def score(*captions, **settings) -> Scores:
    return CaptionScorer().score(*captions, **settings)


def images():
    return list(IMAGES), [found for found, _ in IMAGES.values()], [texts for _, texts in IMAGES.values()]


def published(shared_data, name):
    return json.loads((shared_data / "metric_vectors" / name).read_text(encoding="utf-8"))


def scores_of(vector, found, tokenizer):
    ids = list(vector["refs"])
    scorer = CaptionScorer(tokenizer)
    return scorer.score(
        ids, [found[i] for i in ids], [vector["refs"][i] for i in ids], intervals=False
    ).corpus


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("01_nlgeval.json", 1e-6), ("04_mrgrl_template_382.json", 1e-9), ("05_mrgrl_qwen_beam3_382.json", 1e-9)],
)
def test_published_scores_of_tokenized_text(shared_data, name, tolerance):
    vector = published(shared_data, name)
    corpus = scores_of(vector, vector["hyps"], "whitespace")
    for key, own in NAMES.items():
        assert corpus[own] == pytest.approx(vector["expected"][key], abs=tolerance), key


def test_published_scores_of_a_single_image(shared_data):
    [vector] = published(shared_data, "01_nlgeval.json")["individual"]
    corpus = CaptionScorer("whitespace").score(["a"], [vector["hyp"]], [vector["refs"]]).corpus
    for key, own in NAMES.items():
        assert corpus[own] == pytest.approx(vector["expected"][key], abs=1e-6), key


@pytest.mark.parametrize("which", ["good", "bad"])
def test_published_scores_of_raw_text(shared_data, which):
    vector = published(shared_data, "02_clipscore_example.json")
    corpus = scores_of(vector, vector[which]["hyps"], "ptb")
    for key, own in NAMES.items():
        assert corpus[own] == pytest.approx(vector[which]["expected"][key], abs=5.01e-5), key


def test_figures_of_the_original_project(shared_data):
    with (shared_data / "published_predictions_100_rows.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {row["image"]: row["generated"] for row in rows}
    texts = [[row["reference"] for row in rows if row["image"] == image] for image in found]
    corpus = CaptionScorer(original=True).score(list(found), list(found.values()), texts).corpus
    assert corpus["bleu_bigram"] == pytest.approx(0.060595046996829, abs=1e-15)
    expected = {
        "r": (0.258267, 0.072256, 0.249378),
        "p": (0.422222, 0.111515, 0.407222),
        "f": (0.316515, 0.084299, 0.305385),
    }
    for part, values in expected.items():
        for kind, value in zip(("1", "2", "l"), values, strict=True):
            assert corpus[f"rouge_{kind}_{part}"] == pytest.approx(value, abs=5.01e-7)


def test_per_image_scores_are_those_of_the_reference_scorers():
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    from src.metrics.ptb.tokenizer import ptb_tokenize

    ids, found, texts = images()
    wanted = {i: ptb_tokenize(own) for i, own in zip(ids, texts, strict=True)}
    given = {i: [line] for i, line in zip(ids, ptb_tokenize(found), strict=True)}
    rows = score(ids, found, texts).per_image
    cider = Cider().compute_score(wanted, given)[1]
    rouge = Rouge().compute_score(wanted, given)[1]
    bleu = Bleu(4).compute_score(wanted, given, verbose=0)[1]
    for index, row in enumerate(rows):
        assert row["cider_d"] == cider[index]
        assert row["rouge_l"] == rouge[index]
        assert [row[f"bleu_{n + 1}"] for n in range(4)] == [values[index] for values in bleu]


def test_corpus_means_and_intervals_belong_together():
    scores = score(*images())
    assert scores.corpus["cider_d"] == pytest.approx(sum(row["cider_d"] for row in scores.per_image) / 3)
    assert set(scores.intervals) == set(scores.corpus) - {"distinct_fraction"}
    for name, (low, high) in scores.intervals.items():
        assert low <= scores.corpus[name] <= high, name
    assert all(isinstance(value, float) for value in scores.corpus.values())
    assert json.loads(json.dumps(scores.per_image)) == scores.per_image


def test_same_input_same_intervals_and_another_seed_others():
    assert CaptionScorer(seed=1).score(*images()) == CaptionScorer(seed=1).score(*images())
    one, other = (CaptionScorer(bootstrap_samples=20, seed=seed).score(*images()) for seed in (1, 2))
    assert one.corpus == other.corpus
    assert one.intervals != other.intervals


def test_no_intervals_on_the_fast_path_or_without_samples():
    assert score(*images(), intervals=False).intervals == {}
    assert CaptionScorer(bootstrap_samples=0).score(*images()).intervals == {}


def test_scorers_print_nothing(capsys):
    score(*images())
    CaptionScorer(original=True).score(*images())
    assert capsys.readouterr() == ("", "")


def test_order_of_images_does_not_change_scores():
    ids, found, texts = images()
    backwards = score(ids[::-1], found[::-1], texts[::-1])
    for name, value in score(ids, found, texts).corpus.items():
        assert backwards.corpus[name] == pytest.approx(value), name


def test_one_image_one_reference():
    scores = score(["a"], ["a dog runs in the park"], [["a dog runs in the park"]])
    assert scores.corpus["bleu_4"] == pytest.approx(1)
    assert scores.corpus["rouge_l"] == 1
    assert scores.corpus["cider_d"] == 0  # a single document tells no word from another
    assert scores.intervals["bleu_4"][0] == scores.intervals["bleu_4"][1]


@pytest.mark.parametrize("empty", ["", "  ", "...", "\n", "\u200b"])
def test_an_empty_candidate_scores_nothing(empty):
    scores = CaptionScorer(original=True).score(["a", "b"], [empty, "a dog"], [["a cat"], ["a dog"]])
    assert scores.per_image[0]["cider_d"] == scores.per_image[0]["rouge_l"] == 0
    assert scores.per_image[0]["bleu_1"] == pytest.approx(0)
    assert scores.per_image[0]["rouge_1_f"] == 0
    assert scores.per_image[1]["rouge_l"] == 1


def test_all_candidates_or_references_empty():
    for found, texts in (("", "a dog"), ("a dog", ""), ("", "")):
        scores = CaptionScorer(original=True).score(["a", "b"], [found, found], [[texts], [texts]])
        assert all(math.isfinite(value) for value in scores.corpus.values())
        assert scores.corpus["cider_d"] == 0


def test_line_breaks_in_a_candidate_are_blanks():
    plain = score(["a", "b"], ["a dog runs", "a cat"], [["a dog runs"], ["the cat"]])
    assert score(["a", "b"], ["a dog\nruns\r\n", "a cat"], [["a dog\nruns"], ["the cat"]]) == plain


@given(st.lists(st.tuples(st.text(), st.lists(st.text(), min_size=1, max_size=3)), min_size=1, max_size=4))
@settings(max_examples=100, deadline=5000)
def test_any_text_has_finite_scores(images):
    ids = [str(i) for i in range(len(images))]
    scorer = CaptionScorer(bootstrap_samples=5, original=True)
    scores = scorer.score(ids, [found for found, _ in images], [texts for _, texts in images])
    values = [*scores.corpus.values(), *(value for row in scores.per_image for value in row.values())]
    values += [bound for bounds in scores.intervals.values() for bound in bounds]
    assert all(math.isfinite(value) and value >= 0 for value in values)


def test_long_texts_score():
    text = "word " * 3000
    scores = CaptionScorer(original=True).score(["a", "b"], ["word here", "b"], [[text], ["b c"]])
    assert 0 < scores.corpus["rouge_l_r"] < 1


def test_collapse_is_seen():
    same = score(["a", "b"], ["a dog runs a dog runs a dog runs"] * 2, [["x"], ["y"]]).corpus
    assert same["distinct_fraction"] == 0.5
    assert same["mean_length"] == 9
    assert same["repeated_ngram_fraction"] == pytest.approx(4 / 7)


def test_few_images_are_warned_of_once(monkeypatch, caplog):
    monkeypatch.setattr(scoring, "_warned", set())
    with caplog.at_level(logging.WARNING, logger="src.metrics.scorer"):
        score(*images())
        score(*images())
    assert len([record for record in caplog.records if "CIDEr-D of 3 images" in record.getMessage()]) == 1


def test_hundred_images_are_not_warned_of(monkeypatch, caplog):
    monkeypatch.setattr(scoring, "_warned", set())
    ids = [str(i) for i in range(100)]
    with caplog.at_level(logging.WARNING, logger="src.metrics.scorer"):
        score(ids, ["a dog"] * 100, [["a dog"]] * 100, intervals=False)
    assert not caplog.records


@pytest.mark.parametrize(
    ("ids", "found", "texts", "message"),
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
def test_input_without_a_score_is_refused(ids, found, texts, message):
    with pytest.raises(UserError, match=message):
        score(ids, found, texts)


def test_unknown_tokenizer_is_refused():
    with pytest.raises(UserError, match=r"metrics.tokenizer='java'; expected ptb or whitespace"):
        CaptionScorer("java")


def test_negative_samples_are_refused():
    with pytest.raises(UserError, match=r"metrics.bootstrap_samples=-1"):
        CaptionScorer(bootstrap_samples=-1)


def test_java_scorers_are_looked_for_when_made(monkeypatch, caplog):
    monkeypatch.setattr(scoring, "skip_reason", lambda name, setting: "java is not on the PATH")
    with caplog.at_level(logging.INFO, logger="src.metrics.scorer"):
        scorer = CaptionScorer(meteor="auto", spice="auto")
    assert scorer.skipped == dict.fromkeys(("meteor", "spice"), "java is not on the PATH")
    assert "METEOR is skipped: java is not on the PATH" in caplog.text
    assert scorer.score(*images()).skipped == scorer.skipped
    assert CaptionScorer().skipped == {}


def test_a_java_scorer_that_fails_costs_its_score_only(monkeypatch):
    def fail(*arguments):
        raise JavaScorerFailed("no result within 1 seconds")

    monkeypatch.setattr(scoring, "skip_reason", lambda name, setting: None)
    monkeypatch.setattr(scoring, "run", fail)
    scores = CaptionScorer(meteor="auto").score(*images())
    assert scores.skipped == {"meteor": "no result within 1 seconds"}
    assert "meteor" not in scores.corpus
    assert "cider_d" in scores.corpus


def test_validation_does_not_wait_for_java(monkeypatch):
    monkeypatch.setattr(scoring, "skip_reason", lambda name, setting: None)
    monkeypatch.setattr(scoring, "run", None)  # would fail if called
    assert "cider_d" in CaptionScorer(meteor=True).score(*images(), intervals=False).corpus
