"""The ways to train: their arguments, the table, the last line."""

import pytest

from benchmarks import finished_runs, layers
from benchmarks.finished_runs import FinishedRun, run_train
from benchmarks.train_ways import DEFAULTS, RATES, main, result, table, words_for
from src.utils.errors import UserError

SCORES = {"loss": 1.0, "bleu_4": 0.4, "cider_d": 1.5, "cider_d_low": 1.25, "cider_d_high": 1.75}
BASE = {"loss": 6.0, "bleu_4": 0.1, "cider_d": 0.1, "cider_d_low": 0.05, "cider_d_high": 0.2}
METRICS = {
    "time/fit_seconds": 61.7,
    **{f"test/{name}": value for name, value in SCORES.items()},
    **{f"zero_shot/test/{name}": value for name, value in BASE.items()},
}
RUN = FinishedRun(METRICS, 123_456, 1.48, 1.234)


def test_the_table_has_the_base_and_a_row_for_each_way():
    lines = table({"lora": RUN, "full": RUN}, RATES).splitlines()
    assert lines[1] == "|" + "---|" * 8
    assert lines[2] == "| none (zero-shot) | - | 0 | - | - | - | 6.00 | 0.10 (0.05 to 0.20) |"
    assert lines[3] == "| lora | 0.01 | 123,456 | 1.5 MB | 62 s | 1.23 GB | 1.00 | 1.50 (1.25 to 1.75) |"
    assert len(lines) == 5


def test_one_step_has_no_scores():
    run = FinishedRun({"time/fit_seconds": 20.0}, 239_616, 3.02, 2.8)
    lines = table({"lora": run}, RATES).splitlines()
    assert lines[2] == "| lora | 0.01 | 239,616 | 3.0 MB | 20 s | 2.80 GB | - | - |"
    assert "loss_fell" not in result({"lora": run}, RATES)["lora"]


def test_the_result_says_whether_the_loss_fell():
    assert result({"lora": RUN}, RATES)["lora"]["loss_fell"] is True
    worse = FinishedRun({**METRICS, "test/loss": 7.0}, 1, 1.0, 1.0)
    assert result({"lora": worse}, RATES)["lora"]["loss_fell"] is False


@pytest.mark.parametrize("way", RATES)
def test_every_way_composes_with_its_own_rate(way):
    from benchmarks.product import compose_config

    for full_size in ("", "/some/base"):
        words = words_for(way, DEFAULTS | {"full_size": full_size}, "/scratch")
        words = [word for word in words if not word.startswith(("callbacks.", "~callbacks."))]
        config = compose_config(*words)
        assert config.model.train == way
        assert config.model.optimizer.lr == RATES[way]
        assert (config.model.checkpoint == "/some/base") == bool(full_size)
        assert (config.trainer.max_steps == 1) == bool(full_size)


def test_layers_share_the_runs():
    lines = layers.table({1: RUN, 2: RUN}).splitlines()
    assert lines[2] == "| none (zero-shot) | 0 | - | 6.00 | 0.10 | 0.10 (0.05 to 0.20) |"
    assert lines[4] == "| 2 | 123,456 | 62 s | 1.00 | 0.40 | 1.50 (1.25 to 1.75) |"


def test_a_run_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("raise SystemExit(1)\n", encoding="utf-8")
    monkeypatch.setattr(finished_runs, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"train\.py model\.train=lora failed; expected a finished run"):
        run_train(["model.train=lora"], tmp_path / "logs")


def test_a_finished_run_is_read(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[-1].partition('=')[2], 'train', 'runs', 'now')\n"
        "(folder / 'checkpoints').mkdir(parents=True)\n"
        "(folder / 'checkpoints' / 'best.ckpt').write_bytes(bytes(3_000_000))\n"
        "(folder / 'metrics.json').write_text(json.dumps({'test/loss': 1.5}))\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(finished_runs, "ROOT", tmp_path)
    monkeypatch.setattr(finished_runs, "trained_weights", lambda path: 7)
    run = run_train([], tmp_path / "logs")
    assert (run.metrics, run.weights, run.checkpoint_mb) == ({"test/loss": 1.5}, 7, 3.0)
    assert run.peak_gb > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--help"], "'--help' is no argument; expected experiment="),
        (["lora=high"], "lora='high'; expected a number; set lora=0.01"),
        ([f"{way}=0" for way in RATES], "every way has the learning rate 0; expected one to run"),
    ],
)
def test_a_wrong_argument_is_one_line(words, told):
    with pytest.raises(UserError, match=told) as caught:
        main(words)
    assert "\n" not in str(caught.value)
