"""The module trains what it says, by the loss that it says, and its checkpoints hold no more."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from transformers import VisionEncoderDecoderModel

from src.datamodule.flickr import FlickrDataModule
from src.models.checkpoint import METADATA_KEY, AtomicCheckpointIO, read_checkpoint
from src.models.optimization import linear_with_warmup
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
        datamodule.connect(module.preprocessing)
        return module, datamodule

    return build


def trainer(tmp_path, **settings):
    settings = {"max_epochs": 1, "num_sanity_val_steps": 0} | settings
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, plugins=[AtomicCheckpointIO()],
        default_root_dir=tmp_path, **settings,
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


def test_frozen_modules_stay_in_eval_mode_while_training(make):
    module, _ = make()
    module.train()
    training = {name for name, part in module.model.named_modules() if part.training}
    assert training
    assert all(".2" in name for name in training)


def test_the_loss_is_that_of_transformers_over_single_captions(make):
    module, data = make()
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        nats, tokens = module.sum_nll_and_num_tokens(batch)
        expected, count = 0.0, 0
        words = module.preprocessing
        for row, references in enumerate(batch.references):
            for caption in references:
                ids = [*words.encode_caption(caption), words.eos_id]
                labels = torch.tensor([ids])
                inputs = torch.tensor([[words.start_id, *ids[:-1]]])
                loss = module.model(
                    pixel_values=batch.pixel_values[row : row + 1], decoder_input_ids=inputs, labels=labels
                ).loss
                expected, count = expected + loss.item() * len(ids), count + len(ids)
    assert tokens.item() == count
    assert nats.item() == pytest.approx(expected, rel=1e-5)


def test_backbone_and_head_are_the_encoder(make):
    module, data = make()
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        features = module.backbone_features(batch.pixel_values)
        whole = module.model.encoder(batch.pixel_values).last_hidden_state
        torch.testing.assert_close(module.encode(batch), whole)
        batch.features, batch.pixel_values = features, None
        torch.testing.assert_close(module.encode(batch), whole)


def test_one_batch_is_learned_by_heart(make):
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
    half = trainer(tmp_path, max_epochs=1)
    half.fit(first, data)
    half.save_checkpoint(tmp_path / "half.ckpt")
    second, data = make()
    trainer(tmp_path, max_epochs=2).fit(second, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(weight, unbroken[name]) for name, weight in weights(second).items())


def test_base_weights_come_and_go(make, tmp_path):
    module, data = make()
    before = weights(module)
    trainer(tmp_path).fit(module, data)
    trained = weights(module)
    with module.base_weights():
        assert all(torch.equal(weight, before[name]) for name, weight in weights(module).items())
    assert all(torch.equal(weight, trained[name]) for name, weight in weights(module).items())


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
    [({"train": "all"}, "model.train='all'"), ({"num_layers_to_train": 4}, "num_layers_to_train=4")],
)
def test_settings_that_cannot_be_are_told(make, settings, message):
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


def test_compiled_blocks_give_the_same_loss_under_the_same_names(make, monkeypatch):
    plain, data = make()
    batch = next(iter(data.val_dataloader()))
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    module, _ = make(compile=True)
    assert compiled == list(module.model.encoder.layers)
    monkeypatch.undo()
    for block in compiled:
        block.compile(backend="aot_eager")  # all of torch.compile but the compiler of the machine
    with torch.no_grad():
        expected, _ = plain.eval().sum_nll_and_num_tokens(batch)
        found, _ = module.eval().sum_nll_and_num_tokens(batch)
    torch.testing.assert_close(found, expected)
    assert module.names == plain.names
