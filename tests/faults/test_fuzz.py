"""Any text survives the whole way: tokens and back, packing and back, a predictions file and back."""

import csv
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.caption_dataset import CaptionItem, tokenize_captions
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.collate import collate
from src.datamodule.readers.encodings import clean_caption
from src.evaluate import PER_IMAGE, write_predictions
from src.metrics.scorer import Scores
from tests.datamodule.tiny import tiny_processor
from tests.models.random_captioner import unpack

WORDS = tiny_processor(max_positions=1000)
CAPTIONS = st.lists(st.lists(st.text(max_size=20), min_size=1, max_size=4), min_size=1, max_size=4)


def images_of(rows: list[list[str]]) -> list[CaptionedImage]:
    return [CaptionedImage(f"{n}.jpg", f"/{n}.jpg", tuple(row), str(n)) for n, row in enumerate(rows)]


@settings(max_examples=25, deadline=None)
@given(CAPTIONS)
def test_any_captions_come_back_from_a_packed_batch(rows: list[list[str]]) -> None:
    rows = [[clean_caption(text) for text in row] for row in rows]
    tokens, num_cut = tokenize_captions(images_of(rows), WORDS, WORDS.token_limit())
    items = [CaptionItem(str(n), tokens[n], row) for n, row in enumerate(rows)]
    batch = collate(items, WORDS.image, WORDS.start_id, WORDS.eos_id, WORDS.pad_id)
    assert [[WORDS.decode(ids) for ids in row] for row in unpack(batch)] == rows
    assert batch.references == rows
    assert num_cut == 0


@settings(max_examples=25, deadline=None)
@given(CAPTIONS, st.text(max_size=20))
def test_any_captions_come_back_from_a_predictions_file(tmp_path_factory, rows: list[list[str]], caption: str) -> None:
    rows, caption = [[clean_caption(text) for text in row] for row in rows], clean_caption(caption)
    path = Path(tmp_path_factory.getbasetemp()) / "any_predictions.csv"
    images = images_of(rows)
    scores = Scores({}, {}, [dict.fromkeys(PER_IMAGE, 0.0)] * len(images))
    write_predictions(path, images, {image.image_id: caption for image in images}, scores)
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["caption"] for row in found] == [caption] * len(rows)
    for row, captions in zip(found, rows, strict=True):
        assert [row[f"reference_{k + 1}"] for k in range(len(captions))] == captions
