"""VitGpt2 trains the chosen blocks by the loss per token, refuses steps that are not finite, and keeps its state."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from transformers import VisionEncoderDecoderModel

from src.datamodule.flickr import FlickrDataModule
from src.models.checkpoint import METADATA_KEY, AtomicCheckpointIO, read_checkpoint
from src.models.optimization import linear_with_warmup
from src.models.token_mean import TokenMean
from src.models.vit_gpt2 import VitGpt2
from src.utils.errors import UserError


@pytest.fixture
def make(tiny_checkpoint, flickr_folder):
    """A module and a connected data module: `make(train="full")`."""

    def build(data=None, **settings):
        settings = {
            "optimizer": partial(torch.optim.AdamW, lr=1e-2),
            "max_length": 8,
            "num_beams": 1,
        } | settings
        torch.manual_seed(0)
        module = VitGpt2(str(tiny_checkpoint), **settings)
        datamodule = FlickrDataModule(flickr_folder, **({"batch_size": 8, "num_workers": 0} | (data or {})))
        datamodule.setup()
        datamodule.connect(module.processor)
        return module, datamodule

    return build


def trainer(tmp_path, **settings):
    settings = {"max_epochs": 1, "num_sanity_val_steps": 0, "plugins": [AtomicCheckpointIO()]} | settings
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=tmp_path, **settings,
    )  # fmt: skip


def weights(module):
    return {name: weight.detach().clone() for name, weight in module.model.named_parameters()}


def test_only_the_last_blocks_train_and_the_others_do_not_move(make, tmp_path):
    module, data = make()
    before = weights(module)
    trainer(tmp_path).fit(module, data)
    moved = {name for name, weight in weights(module).items() if not torch.equal(weight, before[name])}
    assert moved
    assert moved <= set(module.trained_weights())
    assert all(".2." in name for name in moved)  # the third of three blocks
    assert {name.split(".")[0] for name in moved} == {"encoder", "decoder"}
    # Softmax does not change when all keys move alike: a key bias has no gradient but rounding.
    assert len(moved) >= len(module.trained_weights()) - 1


def test_the_default_model_trains_16539648_weights():
    from transformers import GPT2Config, VisionEncoderDecoderConfig, ViTConfig

    from src.models.freezing import choose_trainable

    with torch.device("meta"):
        model = VisionEncoderDecoderModel(
            VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), GPT2Config())
        )
    encoder, decoder = choose_trainable(model, "last_blocks", 1)
    count = [sum(weight.numel() for weight in block.parameters()) for block in (encoder, decoder)]
    assert count == [7_087_872, 9_451_776]
    assert sum(w.numel() for w in model.parameters() if w.requires_grad) == 16_539_648


def test_the_loss_is_that_of_transformers_over_single_captions(make):
    module, data = make()
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        nats, tokens = module.sum_nll_and_num_tokens(batch)
        expected, count = 0.0, 0
        processor = module.processor
        for row, references in enumerate(batch.references):
            for caption in references:
                ids = [*processor.encode_caption(caption), processor.eos_id]
                labels = torch.tensor([ids])
                inputs = torch.tensor([[processor.start_id, *ids[:-1]]])
                loss = module.model(
                    pixel_values=batch.pixel_values[row : row + 1], decoder_input_ids=inputs, labels=labels
                ).loss
                expected, count = expected + loss.item() * len(ids), count + len(ids)
    assert tokens.item() == count
    assert nats.item() == pytest.approx(expected, rel=1e-5)


def test_one_batch_can_be_overfitted(make):
    module, data = make({"num_samples": 40, "captions_per_image": 1}, train="full")
    batch = next(iter(data.train_dataloader()))
    assert len(batch) >= 6
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        nats, tokens = module.sum_nll_and_num_tokens(batch)
        optimizer.zero_grad()
        (nats / tokens).backward()
        optimizer.step()
        losses.append((nats / tokens).item())
    assert losses[-1] < 0.1 * losses[0]


def test_same_seed_same_weights(make, tmp_path):
    runs = []
    for _ in range(2):
        module, data = make()
        trainer(tmp_path).fit(module, data)
        runs.append(weights(module))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_a_checkpoint_holds_the_trained_weights_by_hub_parameter_names_and_loads_to_the_same_loss(
    make, tmp_path
):
    module, data = make()
    fitting = trainer(tmp_path)
    fitting.fit(module, data)
    fitting.test(module, data, verbose=False)
    loss = fitting.callback_metrics["test/loss"].item()
    path = tmp_path / "a.ckpt"
    fitting.save_checkpoint(path)
    content = read_checkpoint(path)
    assert len(content["state_dict"]) == len(module.trained_weights())
    public = VisionEncoderDecoderModel.from_pretrained(module.base_id)
    public.save_pretrained(tmp_path / "saved")
    from safetensors import safe_open

    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as file:
        assert set(content["state_dict"]) <= set(file.keys())
    assert content[METADATA_KEY]["base_sha256"] == module.base_sha256
    other, data = make()
    again = trainer(tmp_path)
    again.test(other, data, ckpt_path=path, verbose=False)
    assert again.callback_metrics["test/loss"].item() == pytest.approx(loss, abs=1e-6)


def test_a_resumed_run_ends_in_the_same_weights(make, tmp_path):
    module, data = make()
    trainer(tmp_path, max_epochs=2).fit(module, data)
    unbroken = weights(module)

    first, data = make()
    interrupted = trainer(tmp_path, max_epochs=1)
    interrupted.fit(first, data)
    interrupted.save_checkpoint(tmp_path / "interrupted.ckpt")
    second, data = make()
    trainer(tmp_path, max_epochs=2).fit(
        second, data, ckpt_path=tmp_path / "interrupted.ckpt", weights_only=True
    )
    assert all(torch.equal(weight, unbroken[name]) for name, weight in weights(second).items())


def test_a_loss_that_is_not_finite_stops_before_the_optimizer(make, tmp_path):
    module, data = make()
    before = weights(module)
    module.sum_nll_and_num_tokens = lambda batch: (
        torch.tensor(float("nan"), requires_grad=True),
        torch.tensor(5),
    )
    with pytest.raises(UserError, match=r"plain_\d+\.jpg"):
        trainer(tmp_path).fit(module, data)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(module).items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "all"}, "model.train='all'"),
        ({"num_layers_to_train": 4}, "num_layers_to_train=4"),
        ({"num_layers_to_train": 0}, "num_layers_to_train=0 leaves nothing to train; expected 1 or more"),
        ({"max_length": 4000}, r"model\.max_length=4000; expected 2 to \d+ tokens"),
    ],
)
def test_a_wrong_setting_is_one_line(make, settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)


def test_training_needs_an_optimizer(make, tmp_path):
    module, data = make(optimizer=None)
    with pytest.raises(UserError, match=r"model\.optimizer=null"):
        trainer(tmp_path).fit(module, data)


def test_a_schedule_needs_an_end(make, tmp_path):
    schedule = {"scheduler": linear_with_warmup, "interval": "step", "frequency": 1, "monitor": "val/loss"}
    module, data = make(lr_scheduler=schedule)
    with pytest.raises(UserError, match=r"trainer\.max_epochs=-1 with a schedule; expected an end"):
        trainer(tmp_path, max_epochs=-1).fit(module, data)


def fitted_schedule(make, tmp_path, epochs, **schedule):
    """Learning rates of the epochs' first steps."""
    seen = []
    module, data = make(
        {"num_samples": 80}, lr_scheduler={"scheduler": partial(linear_with_warmup, warmup=0.0), **schedule}
    )
    module.on_train_epoch_start = lambda: seen.append(module.trainer.optimizers[0].param_groups[0]["lr"])
    trainer(tmp_path, max_epochs=epochs).fit(module, data)
    return seen


def test_a_schedule_per_epoch_counts_epochs(make, tmp_path):
    rates = fitted_schedule(make, tmp_path, 4, interval="epoch", frequency=1)
    assert rates == pytest.approx([1e-2, 0.75e-2, 0.5e-2, 0.25e-2])
    rates = fitted_schedule(make, tmp_path, 4, interval="epoch", frequency=2)
    assert rates == pytest.approx([1e-2, 1e-2, 0.5e-2, 0.5e-2])


class Gradients(pl.Callback):
    """Gradients of each step before and after clipping, and the logged norm; `spoil` changes them first."""

    def __init__(self, spoil=None):
        self.before, self.after, self.logged, self.spoil = [], [], [], spoil

    def on_after_backward(self, trainer, module):
        if self.spoil is not None:
            next(iter(module.trained_weights().values())).grad.view(-1)[0] = self.spoil

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.before.append(flat_gradients(module))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.after.append(flat_gradients(module))
        self.logged.append(float(trainer.callback_metrics.get("train/grad_norm", math.nan)))


def flat_gradients(module):
    return torch.cat([weight.grad.flatten().clone() for weight in module.trained_weights().values()])


def fit_gradients(make, tmp_path, seen, data=None, optimizer=None, **settings):
    """Train one step without dropout; the module and its trained weights before."""
    module, data = make(
        {"num_samples": 60, **(data or {})}, optimizer=optimizer or partial(torch.optim.SGD, lr=1.0)
    )
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    before = weights(module)
    settings = {"max_epochs": 1, "max_steps": 1, "limit_val_batches": 0, "log_every_n_steps": 1} | settings
    trainer(tmp_path, callbacks=[seen], **settings).fit(module, data)
    return module, before


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_by_the_algorithm_that_is_set(make, tmp_path, algorithm):
    seen = Gradients()
    fit_gradients(make, tmp_path, seen, gradient_clip_val=0.01, gradient_clip_algorithm=algorithm)
    raw, clipped = seen.before[0], seen.after[0]
    assert raw.abs().max() > 0.01
    expected = raw.clamp(-0.01, 0.01) if algorithm == "value" else raw * 0.01 / (raw.norm() + 1e-6)
    torch.testing.assert_close(clipped, expected)
    assert seen.logged[0] == pytest.approx(raw.norm().item(), rel=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_fp16_clips_gradients_without_their_loss_scale(make, tmp_path, fused):
    """Fused optimizers get scaled gradients, others unscaled ones; both step by the same limit."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugins = [AtomicCheckpointIO(), MixedPrecision("16-mixed", "cpu", scaler)]
    seen, optimizer = Gradients(), partial(torch.optim.SGD, lr=1.0, fused=fused)
    module, before = fit_gradients(
        make, tmp_path, seen, optimizer=optimizer, gradient_clip_val=0.5, plugins=plugins
    )
    scale = 1024.0 if fused else 1.0
    norm = seen.before[0].norm().item() / scale
    assert norm > 0.5
    assert seen.logged[0] == pytest.approx(norm, rel=1e-4)
    moved = [(weight - before[name]).flatten() for name, weight in weights(module).items()]
    assert torch.cat(moved).norm().item() == pytest.approx(0.5, rel=1e-2)


def test_accumulated_batches_have_the_gradient_of_one_batch_of_all_their_images(make, tmp_path):
    whole, batches = Gradients(), Gradients()
    fit_gradients(make, tmp_path, whole, {"batch_size": 32})
    fit_gradients(make, tmp_path, batches, {"batch_size": 3}, accumulate_grad_batches=8, max_steps=-1)
    assert len(whole.before) == len(batches.before) == 1
    assert len(batches.after) > 2
    torch.testing.assert_close(batches.before[0], whole.before[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_moves_no_weight(make, tmp_path, value):
    module, data = make(optimizer=partial(torch.optim.AdamW, lr=1e-3, fused=True))
    before = weights(module)
    with pytest.raises(
        UserError, match=r"the gradient of step 0 is (inf|nan); expected a finite number; the weights"
    ):
        trainer(tmp_path, callbacks=[Gradients(value)], gradient_clip_val=1.0).fit(module, data)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(module).items())


def test_a_mean_over_tokens_counts_each_token_once():
    mean = TokenMean()
    assert math.isnan(mean.compute(None))
    mean.update(torch.tensor(6.0), torch.tensor(2))
    mean.update(torch.tensor(4.0), torch.tensor(8))
    assert mean.compute(None) == 1.0
    for first, expected in (
        (True, [3.0, 2.0]),
        (False, [0.0, 0.0]),
    ):  # sums of a checkpoint count in one process
        mean.load([3.0, 2.0], SimpleNamespace(is_global_zero=first))
        assert mean.sync(None) == expected
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda sums, reduce_op: sums * 2)
    mean.load([3.0, 2.0], None)
    assert mean.sync(SimpleNamespace(world_size=2, strategy=strategy)) == [6.0, 4.0]


def test_a_test_leaves_a_caption_of_each_image(make, tmp_path):
    module, data = make()
    testing = trainer(tmp_path)
    testing.test(module, data, verbose=False)
    assert list(module.test_captions) == [image.image_id for image in data.splits["test"]]
    predicted = testing.predict(module, data.test_dataloader())
    assert {name: text for batch in predicted for name, text in batch.items()} == module.test_captions
