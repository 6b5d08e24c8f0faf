"""Any text survives the whole way: tokens and back, packing and back, a predictions file and back."""

from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.caption_dataset import CaptionItem, tokenize_captions
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.collate import collate
from src.datamodule.readers.files import clean_caption
from src.evaluate import PER_IMAGE, write_predictions
from src.metrics.scorer import Scores
from src.report.run_files import read_predictions
from tests.datamodule.tiny import tiny_processor
from tests.models.random_captioner import unpack

PROCESSOR = tiny_processor(max_positions=1000)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.text(max_size=20), min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_captions_come_back_from_a_packed_batch_and_a_predictions_file(tmp_path_factory, rows) -> None:
    rows = [tuple(clean_caption(text) for text in row) for row in rows]
    images = [CaptionedImage(f"{n}.jpg", f"/{n}.jpg", row, str(n)) for n, row in enumerate(rows)]
    tokens, num_cut = tokenize_captions(images, PROCESSOR, PROCESSOR.token_limit())
    items = [CaptionItem(image.image_id, tokens[n], list(rows[n])) for n, image in enumerate(images)]
    batch = collate(items, PROCESSOR.image, PROCESSOR.start_id, PROCESSOR.eos_id, PROCESSOR.pad_id)
    assert [tuple(PROCESSOR.decode(ids) for ids in row) for row in unpack(batch)] == rows
    assert num_cut == 0

    path = tmp_path_factory.getbasetemp() / "any_predictions.csv"
    scores = Scores({}, {}, [dict.fromkeys(PER_IMAGE, 0.0)] * len(images))
    write_predictions(path, images, {image.image_id: image.captions[-1] for image in images}, scores)
    found = read_predictions(path)
    assert [row.caption for row in found] == [row[-1] for row in rows]
