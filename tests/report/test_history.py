"""The csv log as curves."""

from src.report.history import TRAIN_LOSS, VAL_LOSS, curve, read_history, thinned


def test_rows_of_all_files_follow_each_other_by_step(tmp_path):
    for name, rows in (("version_1", "3,0.5,\n4,,0.6\n"), ("version_0", "1,0.9,\n2,,0.8\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("step,train/loss,val/loss\n" + rows)
    history = read_history(tmp_path)
    assert curve(history, TRAIN_LOSS) == [(1, 0.9), (3, 0.5)]
    assert curve(history, VAL_LOSS) == [(2, 0.8), (4, 0.6)]


def test_cells_that_are_no_numbers_and_cut_rows_are_left_out(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,nan\n2,text\n3,1.5\n4\n,9\n")
    assert curve(read_history(tmp_path), TRAIN_LOSS) == [(3, 1.5)]


def test_a_folder_without_a_log_has_no_history(tmp_path):
    assert read_history(tmp_path / "absent") == []
    assert curve([], VAL_LOSS) == []


def test_the_name_that_was_logged_most_counts_and_of_a_repeated_step_its_last_value():
    steps = [{"step": 1.0, "train/loss_step": 2.0}, {"step": 1.0, "train/loss_step": 1.0}]
    epochs = [{"step": 1.0, "train/loss": 9.0}, {"step": 2.0, "train/loss": 8.0}]
    assert curve(steps, TRAIN_LOSS) == [(1, 1.0)]
    assert curve([*steps, *epochs], TRAIN_LOSS) == [(1, 9.0), (2, 8.0)]


def test_thinning_takes_means_of_neighbours():
    assert thinned([(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0)], 2) == [(0.5, 2.0), (2.5, 6.0)]
    assert thinned([(0, 1.0)], 2) == [(0, 1.0)]
    assert len(thinned([(step, 1.0) for step in range(1001)], 100)) <= 100
