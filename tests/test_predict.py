"""The command that captions files: a row for each image, unreadable ones named and skipped."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from src.captioner import Captioner
from src.models.generation import Hypothesis
from src.predict import find_images, main, write_row
from src.utils.errors import UserError
from tests.datamodule.layouts import LAYOUTS
from tests.datamodule.readers.test_formats import make_samples


@pytest.fixture(scope="module")
def images(flickr_folder, tmp_path_factory) -> Path:
    """Ten images, two of them unreadable."""
    folder = tmp_path_factory.mktemp("images")
    for path in sorted((flickr_folder / "Images").iterdir())[:8]:
        shutil.copy(path, folder)
    (folder / "a_cut.jpg").write_bytes(next(folder.iterdir()).read_bytes()[:150])
    (folder / "z_text.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def expected(images, tiny_checkpoint) -> dict[str, str]:
    good = sorted(path for path in images.iterdir() if path.name[0] == "p")
    captioner = Captioner.from_checkpoint(tiny_checkpoint, max_length=8)
    return dict(zip([path.name for path in good], captioner.caption(good), strict=True))


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def beams(*captions: str) -> list[list[Hypothesis]]:
    return [[Hypothesis(caption, -1.0)] for caption in captions]


def rows(text: str) -> dict[str, str]:
    return {row["image_id"]: row["caption"] for row in csv.DictReader(io.StringIO(text))}


def test_a_folder_with_two_unreadable_files_on_standard_output(images, tiny_checkpoint, expected, capsys):
    assert call(images, f"checkpoint={tiny_checkpoint}", "max_length=8", "batch_size=3") == 2
    printed = capsys.readouterr()
    assert list(rows(printed.out).items()) == sorted(expected.items())
    first, second, last = printed.err.splitlines()
    assert "a_cut.jpg" in first
    assert "z_text.png" in second
    assert last == "8 captioned; 2 could not be read"


def test_csv_and_jsonl_files_appear_whole(images, tiny_checkpoint, expected, tmp_path, capsys):
    settings = [f"checkpoint={tiny_checkpoint}", "max_length=8"]
    out = tmp_path / "new" / "captions.csv"
    assert call(images, *settings, f"out={out}") == 2
    assert rows(out.read_text(encoding="utf-8")) == expected
    assert [path.name for path in out.parent.iterdir()] == ["captions.csv"]
    assert call(images / "p*.jpg", *settings, f"out={tmp_path / 'x.jsonl'}") == 0
    found = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    by_path = {str(images / name): caption for name, caption in expected.items()}
    assert {row["image_id"]: row["caption"] for row in found} == by_path
    assert capsys.readouterr().out == ""


def test_no_readable_image_is_an_error_without_header_or_file(images, tiny_checkpoint, tmp_path, capsys):
    for out in ([], [f"out={tmp_path / 'x.csv'}"]):
        with pytest.raises(UserError, match="of 1 images 1 could not be read"):
            call(images / "z_text.png", f"checkpoint={tiny_checkpoint}", *out)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_empty_captions_are_an_error_or_a_status(images, tiny_checkpoint, monkeypatch, capsys):
    arguments = (images / "p*.jpg", f"checkpoint={tiny_checkpoint}")
    monkeypatch.setattr(Captioner, "_generate", lambda self, pixels, nbest: beams(*[" "] * len(pixels)))
    with pytest.raises(UserError, match="8 empty captions; expected at least one"):
        call(*arguments)
    monkeypatch.setattr(Captioner, "_generate", lambda self, pixels, nbest: beams("a dog", *[""] * (len(pixels) - 1)))
    assert call(*arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "1 captioned; 7 empty captions"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_to_images_and_folders_are_followed(images, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "sub").symlink_to(images)
    (folder / "one.jpg").symlink_to(next(images.glob("p*.jpg")))
    (folder / "same.jpg").symlink_to(next(images.glob("p*.jpg")))  # one blob under two names: two images
    (folder / "loop").symlink_to(folder)
    found = [image.image_id for image in find_images([str(folder)])]
    assert found == ["one.jpg", "same.jpg", *(f"sub/{path.name}" for path in sorted(images.iterdir()))]


def test_files_of_equal_names_keep_their_folders(tmp_path):
    for name in ("cats/1.jpg", "dogs/1.jpg", ".hidden/1.jpg", "dogs/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [image.image_id for image in find_images([str(tmp_path)])] == ["cats/1.jpg", "dogs/1.jpg"]
    paths = [str(tmp_path / "cats/1.jpg"), str(tmp_path / "*" / "*.jpg")]
    assert [image.path for image in find_images(paths)] == [str(tmp_path / "cats/1.jpg"), str(tmp_path / "dogs/1.jpg")]


def test_csv_text_is_as_it_is():
    file = io.StringIO()
    write_row(file, {"image_id": "-dog.jpg", "caption": '@sum, "quoted"'}, "csv", is_first=True)
    write_row(file, {"image_id": "a.jpg", "caption": "zwei\nZeilen ü"}, "csv", is_first=False)
    header, *rows = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert header == ["image_id", "caption"]
    assert rows == [["-dog.jpg", '@sum, "quoted"'], ["a.jpg", "zwei\nZeilen ü"]]


def test_further_captions_have_columns_and_confidences(images, tiny_checkpoint, expected, tmp_path):
    out = tmp_path / "x.csv"
    settings = (f"checkpoint={tiny_checkpoint}", "max_length=8", "num_captions=3", f"out={out}")
    assert call(images / "p*.jpg", *settings, "num_beams=4") == 0
    with open(out, newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [row["caption"] for row in found] == list(expected.values())
    captioner = Captioner.from_checkpoint(tiny_checkpoint, max_length=8, num_beams=4)
    for row in found:
        best = captioner.nbest(row["image_id"])
        texts = [row[f"caption{end}"] for end in ("", "_2", "_3")]
        assert [text for text in texts if text] == [one.caption for one in best[:3]]
        assert float(row["confidence"]) == pytest.approx(best[0].score, abs=1e-3)


def test_imageclef_is_quoted_in_the_order_of_the_input(images, tiny_checkpoint, expected, tmp_path):
    out = tmp_path / "run.csv"
    call(images / "p*.jpg", f"checkpoint={tiny_checkpoint}", "max_length=8", f"out={out}", "format=imageclef")
    lines = ['"ID","Caption"', *(f'"{Path(name).stem}","{text}"' for name, text in expected.items())]
    assert out.read_bytes() == ("\n".join(lines) + "\n").encode()


def test_text_files_beside_images_replace_none(images, tiny_checkpoint, expected, tmp_path):
    for name in expected:
        shutil.copy(images / name, tmp_path)
    first = sorted(expected)[0]
    (tmp_path / first).with_suffix(".txt").write_text("my own")
    assert call(tmp_path, f"checkpoint={tiny_checkpoint}", "max_length=8", "format=txt") == 0
    texts = {name: (tmp_path / name).with_suffix(".txt").read_text() for name in expected}
    assert texts == {name: f"{text}\n" for name, text in expected.items()} | {first: "my own"}


@pytest.mark.parametrize("layout", ["tar_shards", "parquet_bytes"])
def test_images_in_tar_and_parquet_files(tiny_checkpoint, tmp_path, layout):
    samples = make_samples(4)
    LAYOUTS[layout](tmp_path / "data", [*samples, *samples][:4])
    files = sorted((tmp_path / "data").iterdir())[:1]
    assert call(*files, f"checkpoint={tiny_checkpoint}", "max_length=8", f"out={tmp_path / 'x.csv'}") == 0
    assert list(rows((tmp_path / "x.csv").read_text())) == [sample.name for sample in samples]


def test_the_same_command_continues_after_a_stop(images, tiny_checkpoint, expected, tmp_path, monkeypatch):
    out, arguments = tmp_path / "x.csv", (images / "p*.jpg", f"checkpoint={tiny_checkpoint}", "max_length=8")
    generate, calls = Captioner._generate, []

    def stop_at_the_third(self, pixels, nbest):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(self, pixels, nbest)

    monkeypatch.setattr(Captioner, "_generate", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        call(*arguments, "batch_size=2", f"out={out}")
    assert not out.exists()
    assert call(*arguments, "batch_size=2", f"out={out}") == 0
    assert sum(calls) == 2 * 3 + 4  # four images were done, the third batch was begun twice
    assert [Path(name).name for name in rows(out.read_text())] == list(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_a_stop_leaves_the_file_that_was_there(images, tiny_checkpoint, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    (tmp_path / "x.csv").write_text("before")
    monkeypatch.setattr(Captioner, "_generate", stop)
    with pytest.raises(KeyboardInterrupt):
        call(images, f"checkpoint={tiny_checkpoint}", f"out={tmp_path / 'x.csv'}")
    assert (tmp_path / "x.csv").read_text() == "before"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=x.txt"], r"out='x\.txt' format='txt'.*expected a \.csv or \.jsonl file"),
        (["out=/dev/null/x.csv"], r"out='/dev/null/x\.csv' cannot be written"),
        (["beams=2"], "'beams=2' is no argument; did you mean num_beams"),
        (["exp=*/*.jpg"], r"'exp=\*/\*\.jpg' matches no file"),
        (["gone.jpg"], "'gone.jpg' does not exist; expected an image, a folder or a pattern"),
        (["batch_size=0"], "batch_size=0; expected 1 or more"),
        (["checkpoint=./nothing"], "checkpoint='./nothing' does not exist"),
    ],
)
def test_mistakes_are_named(images, tiny_checkpoint, arguments, message):
    with pytest.raises(UserError, match=message):
        call(images, f"checkpoint={tiny_checkpoint}", *arguments)
