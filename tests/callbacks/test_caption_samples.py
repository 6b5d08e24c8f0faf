"""What the model says while it learns: scores that can be monitored, pictures that stay the same."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.callbacks.caption_samples import CaptionSamples
from src.metrics.scorer import CaptionScorer
from tests.callbacks.tiny import make, trainer


class Said(pl.Callback):
    """The captions that the callback found in each validation, and what was logged."""

    def __init__(self, samples):
        self.samples, self.captions, self.logged = samples, [], []

    def on_validation_end(self, trainer, module):
        self.captions.append({name: said for name, (said, _) in self.samples._found.items()})
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(folder, checkpoint, pictures, *callbacks, samples=None, **settings):
    """Two epochs; gives the data module and what was said."""
    module, data = make(checkpoint, pictures)
    made = CaptionSamples(**(samples or {}))
    said = Said(made)
    trainer(folder, made, said, *callbacks, **({"max_epochs": 2} | settings)).fit(module, data)
    return data, said


def tags(folder: Path, kind: str) -> dict[str, list[int]]:
    """What TensorBoard holds of a kind: the steps of each tag."""
    (found,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(found), {"images": 0, "tensors": 0}).Reload()
    read = events.Images if kind == "images" else events.Tensors
    return {tag: [event.step for event in read(tag)] for tag in events.Tags()[kind]}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, tiny_checkpoint, flickr_folder):
    """Two epochs with TensorBoard, a checkpoint of the best CIDEr-D and early stopping on the distinct share."""
    folder = tmp_path_factory.mktemp("samples")
    best = ModelCheckpoint(folder / "best", "best", monitor="val/cider_d", mode="max")
    stopping = EarlyStopping("val/distinct_fraction", mode="max", patience=9)
    logger = TensorBoardLogger(folder, name="", version="")
    data, said = fit(folder, tiny_checkpoint, flickr_folder, best, stopping, samples={"num_shown": 3}, logger=logger,
                     enable_checkpointing=True, num_sanity_val_steps=1)  # fmt: skip
    return folder, data, said, best, stopping


def test_scores_are_those_of_the_captions(fitted):
    _, data, said, _, _ = fitted
    references = {image.image_id: list(image.captions) for image in data.splits["val"]}
    for captions, logged in zip(said.captions[1:], said.logged[1:], strict=True):
        assert captions.keys() == references.keys()
        corpus = (
            CaptionScorer().score(list(captions), list(captions.values()), list(references.values())).corpus
        )
        for name in ("cider_d", "bleu_4", "distinct_fraction"):
            assert logged[f"val/{name}"] == pytest.approx(corpus[name])
    assert 0 < said.logged[-1]["val/distinct_fraction"] <= 1


def test_the_sanity_check_is_not_captioned(fitted):
    _, _, said, _, _ = fitted
    assert len(said.captions) == 3
    assert said.captions[0] == {}
    assert "val/cider_d" not in said.logged[0]


def test_checkpoints_and_early_stopping_may_watch_them(fitted):
    _, _, said, best, stopping = fitted
    scores = [logged["val/cider_d"] for logged in said.logged[1:]]
    assert float(best.best_model_score) == pytest.approx(max(scores))
    assert float(stopping.best_score) == pytest.approx(
        max(logged["val/distinct_fraction"] for logged in said.logged[1:])
    )


def test_tensorboard_shows_the_same_pictures_each_epoch(fitted):
    folder, data, _, _, _ = fitted
    expected = {f"val/{image.image_id}": [0, 1] for image in data.splits["val"][:3]}
    assert tags(folder, "images") == expected
    texts = tags(folder, "tensors")
    assert {f"{name}/text_summary" for name in expected} == texts.keys()


def test_the_share_and_the_epochs_are_bounded(tmp_path, tiny_checkpoint, flickr_folder):
    """The first images of validation, in whole batches, every other epoch."""
    samples = {"max_images": 3, "every_n_epochs": 2}
    module, data = make(tiny_checkpoint, flickr_folder, batch_size=2, split_ratios=[0.4, 0.4, 0.2])
    made = CaptionSamples(**samples)
    said = Said(made)
    trainer(tmp_path, made, said, max_epochs=2).fit(module, data)
    assert said.captions[0] == {}
    assert list(said.captions[1]) == [image.image_id for image in data.splits["val"][:4]]
    assert "val/cider_d" not in said.logged[0]
    assert "val/cider_d" in said.logged[1]


def test_an_image_that_is_gone_when_it_is_to_be_shown_is_skipped(
    tmp_path, tiny_checkpoint, flickr_folder, caplog
):
    _, data = make(tiny_checkpoint, flickr_folder)
    made, logger = CaptionSamples(), TensorBoardLogger(tmp_path, name="", version="")
    shown = trainer(tmp_path, made, logger=logger)
    found = {image.image_id: ("said", list(image.captions)) for image in data.splits["val"]}
    gone = data.splits["val"][0]
    object.__setattr__(gone, "path", gone.path + ".gone")
    shown.datamodule = data
    made._show(shown, found)
    logger.finalize("success")
    assert list(tags(tmp_path, "images")) == [f"val/{image.image_id}" for image in data.splits["val"][1:]]
    assert ".gone" in caplog.text
