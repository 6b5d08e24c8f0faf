"""Files that are whole or not there, also when the writer is killed."""

import json
import os
import stat
import subprocess
import sys

import pytest

from src.utils.errors import UserError
from src.utils.files import SCRATCH_MARKER, atomic_write, create_folder_once, write_json


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_written_with_its_folder_and_the_rights_of_any_new_file(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as file:
        file.write("ä\n")
        assert not path.exists()
    with atomic_write(path.with_name("b"), "wb") as file:
        file.write(b"\x00")
    assert path.read_bytes() == "ä\n".encode()
    assert names(path.parent) == ["a.txt", "b"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_earlier_file_alone(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("earlier")

    def write():
        with atomic_write(path) as file:
            file.write("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["a.txt"]


def test_json_is_whole_or_not_there(tmp_path):
    write_json(tmp_path / "metrics.json", {"test/loss": 1.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"test/loss": 1.5}
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "folder.json", {})


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_killed_writer_leaves_the_earlier_file(tmp_path):
    (tmp_path / "a").write_text("earlier")
    code = (
        "import os, sys\nfrom src.utils.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write('half' * 99999); file.flush(); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")]).returncode == -9
    assert (tmp_path / "a").read_text() == "earlier"


def test_of_a_folder_only_what_a_failed_or_killed_writer_left_is_removed(tmp_path):
    def fail(folder):
        folder.mkdir()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        create_folder_once(tmp_path / "set", fail)
    assert names(tmp_path) == [".set.lock"]
    for name in ("foreign", "killed"):
        (tmp_path / f".set.{name}" / "data").mkdir(parents=True)
    (tmp_path / ".set.killed" / SCRATCH_MARKER).touch()
    create_folder_once(tmp_path / "set", lambda folder: folder.mkdir())
    assert names(tmp_path) == [".set.foreign", ".set.lock", "set"]
