"""Scores of validation captions that can be monitored, and images in TensorBoard that stay the same."""

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.callbacks.caption_samples import CaptionSamples
from src.metrics.scorer import CaptionScorer
from tests.tiny import make, trainer


class Recorder(pl.Callback):
    """Keep the captions that the callback generated in each validation, and what was logged."""

    def __init__(self, samples):
        self.samples, self.captions, self.logged = samples, [], []

    def on_validation_end(self, trainer, module):
        self.captions.append({name: caption for name, (caption, _) in self.samples._found.items()})
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, tiny_checkpoint, flickr_folder):
    """Two epochs with TensorBoard, a checkpoint of the best CIDEr-D and early stopping on the distinct fraction."""
    folder = tmp_path_factory.mktemp("samples")
    best = ModelCheckpoint(folder / "best", "best", monitor="val/cider_d", mode="max")
    stopping = EarlyStopping("val/distinct_fraction", mode="max", patience=9)
    module, data = make(tiny_checkpoint, flickr_folder)
    samples = CaptionSamples(num_shown=3)
    recorder = Recorder(samples)
    settings = {"max_epochs": 2, "enable_checkpointing": True, "num_sanity_val_steps": 1}
    logger = TensorBoardLogger(folder, name="", version="")
    trainer(folder, samples, recorder, best, stopping, logger=logger, **settings).fit(module, data)
    return folder, data, recorder, best, stopping


@pytest.mark.slow
def test_scores_are_those_of_the_captions_and_may_be_monitored(fitted):
    _, data, recorder, best, stopping = fitted
    references = {image.image_id: list(image.captions) for image in data.splits["val"]}
    for captions, logged in zip(recorder.captions[1:], recorder.logged[1:], strict=True):
        assert captions.keys() == references.keys()
        lists = (list(captions), list(captions.values()), list(references.values()))
        corpus = CaptionScorer().score(*lists).corpus
        for name in ("cider_d", "bleu_4", "distinct_fraction"):
            assert logged[f"val/{name}"] == pytest.approx(corpus[name])
    assert float(best.best_model_score) == max(logged["val/cider_d"] for logged in recorder.logged[1:])
    distinct = max(logged["val/distinct_fraction"] for logged in recorder.logged[1:])
    assert float(stopping.best_score) == distinct > 0


def test_the_sanity_check_is_not_captioned(fitted):
    _, _, recorder, _, _ = fitted
    assert len(recorder.captions) == 3
    assert recorder.captions[0] == {}
    assert "val/cider_d" not in recorder.logged[0]


def test_tensorboard_shows_the_same_images_each_epoch(fitted):
    folder, data, _, _, _ = fitted
    (file,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file), {"images": 0}).Reload()
    shown = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    assert shown == {f"val_captions/{image.image_id}": [0, 1] for image in data.splits["val"][:3]}


@pytest.mark.parametrize(("stop", "epochs"), [(True, 1), (False, 2)])
def test_captions_that_are_all_the_same_are_warned_of_and_may_end_training(
    stop, epochs, tmp_path, tiny_checkpoint, flickr_folder, caplog
):
    module, data = make(tiny_checkpoint, flickr_folder, split_ratios=[0.5, 0.4, 0.1])
    module.generate = lambda batch: ["A dog."] * len(batch)
    samples = CaptionSamples(min_distinct_fraction=0.5, stop_on_collapse=stop)
    fitting = trainer(tmp_path, samples, max_epochs=2, limit_train_batches=1)
    fitting.fit(module, data)
    assert fitting.current_epoch == epochs
    assert caplog.text.count("1 different captions for") == epochs
    assert "lower model.optimizer.lr" in caplog.text


@pytest.mark.slow
def test_images_and_epochs_are_bounded(tmp_path, tiny_checkpoint, flickr_folder):
    """The first images of validation, in whole batches, every other epoch."""
    module, data = make(tiny_checkpoint, flickr_folder, batch_size=2, split_ratios=[0.4, 0.4, 0.2])
    samples = CaptionSamples(max_images=3, every_n_epochs=2)
    recorder = Recorder(samples)
    trainer(tmp_path, samples, recorder, max_epochs=2, limit_train_batches=1).fit(module, data)
    assert recorder.captions[0] == {}
    assert list(recorder.captions[1]) == [image.image_id for image in data.splits["val"][:4]]
    assert ["val/cider_d" in logged for logged in recorder.logged] == [False, True]
