"""Time to a loss: the target that every run reaches, when each did, and what the last line says of it."""

import json

import pytest
import torch

from benchmarks.races import Judge, Point, Stopwatch, Watch
from benchmarks.time_to_loss import chosen, judge_runs, main, ratio, report
from src.utils.errors import UserError

THEIRS = [Point(0, 2.0, 5.0), Point(10, 50.0, 3.0), Point(20, 100.0, 2.0)]
OURS = [Point(0, 1.0, 5.0), Point(10, 6.0, 2.5), Point(20, 11.0, 2.2)]


def test_the_target_is_the_lowest_loss_that_every_run_reached():
    found = judge_runs({"seq2seq_trainer_fp32": [THEIRS] * 3, "ours_fp32": [OURS] * 3})
    assert found.target == 2.2
    assert found.seconds == {"seq2seq_trainer_fp32": 100.0, "ours_fp32": 11.0}
    assert found.steps["ours_fp32"] == 20
    assert found.reached == {"seq2seq_trainer_fp32": 2.0, "ours_fp32": 2.2}
    assert found.ahead["ours_fp32"] == 1.0


def test_a_run_that_overfits_counts_to_where_it_first_reached_the_target():
    overfits = [Point(0, 1.0, 5.0), Point(10, 6.0, 2.0), Point(20, 11.0, 4.0)]
    found = judge_runs({"seq2seq_trainer_fp32": [THEIRS], "ours_bf16": [overfits]})
    assert found.target == 2.0
    assert found.seconds["ours_bf16"] == 6.0


def test_the_median_of_the_repetitions_counts():
    slow = [Point(point.step, 3 * point.seconds, point.loss) for point in OURS]
    assert judge_runs({"ours_fp32": [slow, OURS, OURS]}).seconds["ours_fp32"] == 11.0


def test_pixels_kept_take_the_time_of_pictures_read_again_away():
    reads = [Point(0, 2.0, 5.0), Point(10, 80.0, 2.0, pictures=30.0)]
    found = judge_runs({"seq2seq_trainer_fp32": [reads], "ours_fp32": [OURS]})
    assert found.kept == {"seq2seq_trainer_fp32": 50.0, "ours_fp32": 11.0}


def test_rows_read_their_picture_each_time_and_know_what_that_took(tiny_checkpoint, flickr_folder):
    from transformers import AutoImageProcessor

    from benchmarks.baselines import ReadRows, caption_rows
    from src.datamodule.flickr import FlickrDataModule
    from src.models.pretrained import load_captioner

    data, words = FlickrDataModule(flickr_folder), load_captioner(str(tiny_checkpoint)).processor
    data.setup()
    images = data.splits["train"][:2]
    rows = ReadRows(images, AutoImageProcessor.from_pretrained(tiny_checkpoint), words)
    ready = caption_rows(images, words)
    assert len(rows) == len(ready) > len(images)
    for row, expected in zip((rows[index] for index in range(len(rows))), ready, strict=True):
        torch.testing.assert_close(row["pixel_values"], expected["pixel_values"], atol=4 / 255, rtol=0)
        assert torch.equal(row["labels"], expected["labels"])
    assert rows.taken == len(rows)
    assert rows.seconds_again == pytest.approx(rows.seconds * (1 - len(images) / len(rows)))


def test_the_ratio_is_fastest_over_fastest_or_of_one_precision():
    seconds = {
        "seq2seq_trainer_fp32": 90.0, "seq2seq_trainer_bf16": 60.0, "ours_fp32": 15.0, "ours_bf16": 10.0,
    }  # fmt: skip
    assert ratio(seconds) == 6.0
    assert ratio(seconds, "fp32") == 6.0
    assert ratio({"ours_fp32": 15.0}) is None


def test_the_last_line_holds_target_reached_loss_and_ratio(capsys):
    report({"drawn": judge_runs({"seq2seq_trainer_bf16": [THEIRS], "ours_bf16": [OURS]})})
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["target"] == {"drawn": 2.2}
    assert told["reached"]["drawn"] == {"seq2seq_trainer_bf16": 2.0, "ours_bf16": 2.2}
    assert told["ratio"]["drawn"] == pytest.approx(100 / 11)
    assert told["ratio_fp32"] == {"drawn": None}


def test_pauses_do_not_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Stopwatch()
    now[0] = 5.0
    with clock.paused():
        now[0] = 105.0
    now[0] = 106.0
    assert clock.seconds == 6.0


def test_a_watch_looks_at_every_nth_step_and_the_last():
    class Constant:
        def loss(self, weights):
            return 1.0

    watch = Watch(Constant(), every=10)
    for step in range(26):
        watch.look(step, {}, last=step == 25)
    assert [point.step for point in watch.points] == [0, 10, 20, 25]


def test_the_judge_gives_the_loss_of_the_weights_that_it_is_handed(tiny_checkpoint, flickr_folder):
    from src.datamodule.flickr import FlickrDataModule
    from src.models.vit_gpt2 import VitGpt2

    data, module = FlickrDataModule(flickr_folder), VitGpt2(str(tiny_checkpoint))
    data.setup()
    data.connect(module.processor)
    batches = list(data.val_dataloader())
    with torch.no_grad():
        nats, tokens = module.eval().sum_nll_and_num_tokens(batches[0])
    judge = Judge(module, batches)
    weights = {name: weight.detach().clone() for name, weight in module.trained_weights().items()}
    assert judge.loss(weights) == pytest.approx(float(nats / tokens), rel=1e-5)
    changed = {name: weight + 0.1 for name, weight in weights.items()}
    assert judge.loss(changed) != judge.loss(weights)
    with pytest.raises(ValueError, match="0 weights trained; the judge expects"):
        judge.loss({})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--help"], "'--help' is no argument; expected checkpoint="),
        (["only=theirs"], "only=theirs; expected some of seq2seq_trainer_fp32"),
        (["data=coco"], "data=coco; expected some of drawn, flickr8k"),
        (["epochs=few"], "epochs='few'; expected a whole number"),
    ],
)
def test_a_wrong_argument_is_one_line(words, told):
    with pytest.raises(UserError, match=told) as caught:
        main(words)
    assert "\n" not in str(caught.value)


def test_an_empty_choice_is_all():
    assert chosen("data", "", ("drawn", "flickr8k")) == ["drawn", "flickr8k"]
