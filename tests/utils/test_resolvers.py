"""Run folders that no two jobs share."""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

from src.utils import resolvers
from src.utils.resolvers import made_folder, register_resolvers, run_root, run_stamp


def test_stamps_of_one_moment_differ(monkeypatch):
    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 31, 17, 5, 9, 123456)

    monkeypatch.setattr(resolvers, "datetime", Frozen)
    stamps = {run_stamp() for _ in range(50)}
    assert len(stamps) == 50
    assert all(stamp.startswith("2026-01-31_17-05-09-123456-") for stamp in stamps)


def test_stamps_sort_by_time():
    stamps = [run_stamp() for _ in range(20)]
    times = [stamp.rpartition("-")[0] for stamp in stamps]
    assert times == sorted(times)


def test_one_config_has_one_stamp():
    register_resolvers()
    config = OmegaConf.create({"first": "${run_stamp:}", "second": "${run_stamp:}"})
    assert config.first == config.second


def test_jobs_started_at_once_have_folders_of_their_own(tmp_path, root):
    """Four processes with the project's own Hydra settings, started together."""
    script = tmp_path / "job.py"
    script.write_text(
        f"import os, sys\nsys.path.insert(0, {str(root)!r})\nos.environ['PROJECT_ROOT'] = {str(root)!r}\n"
        "import hydra\nfrom src.utils.resolvers import register_resolvers\nregister_resolvers()\n"
        f"@hydra.main(version_base='1.3', config_path={str(root / 'configs')!r}, config_name='train')\n"
        "def main(config):\n    print('folder', config.paths.output_dir)\n"
        "main()\n"
    )
    command = [sys.executable, str(script), f"paths.log_dir={tmp_path / 'logs'}"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True), range(4)))
    assert all(answer.returncode == 0 for answer in answers), answers[0].stderr
    folders = {answer.stdout.split("folder ")[1].strip() for answer in answers}
    assert len(folders) == 4
    assert folders == {str(path) for path in (tmp_path / "logs" / "train" / "runs").iterdir()}


def test_only_rank_zero_writes_to_the_logs(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert run_root("logs") == "logs"
    monkeypatch.setenv("RANK", "1")
    assert Path(run_root("logs")).parent == Path(tempfile.gettempdir())
    assert Path(run_root("logs")).stat().st_mode & 0o077 == 0  # nobody else can write there, and it is new


def test_the_folder_of_a_search_is_made(tmp_path):
    assert made_folder(str(tmp_path / "a" / "b")) == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
