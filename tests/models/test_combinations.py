"""Encoders and decoders of many kinds make captioners that train, generate and reload like the default one."""

import pytest
import torch

from src.callbacks.checkpointing import AtomicCheckpointIO
from src.models.checkpoint import METADATA_KEY
from src.models.freezing import find_blocks
from src.models.vit_gpt2 import VitGpt2
from tests import tiny
from tests.models.folders import save_captioner, save_encoder_and_decoder
from tests.models.random_captioner import separate_nll
from tests.tiny import trainer, weights_of

PAIRS = [
    ("vit", "gpt2", 32), ("vit", "bert", 16), ("deit", "roberta", 32), ("beit", "gpt2", 16),
    ("beit_shared", "gpt2", 16), ("swin", "bert", 32),
]  # fmt: skip


def make(checkpoint, flickr_folder, **settings):
    """A module, and a data module of eight images."""
    settings |= {"generation": {"max_length": 6, "num_beams": 2}}
    return tiny.make(checkpoint, flickr_folder, settings, num_samples=40, batch_size=4, split_seed=0)


def fit(module, data, tmp_path):
    """Train one step; returns the trainer and the names of the weights that it changed."""
    before, fitting = weights_of(module), trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fitting.fit(module, data)
    return fitting, {name for name, weight in weights_of(module).items() if not torch.equal(weight, before[name])}


def reload(fitting, module, tmp_path):
    """Save the trainer's model and load it into another module; returns the checkpoint."""
    fitting.save_checkpoint(tmp_path / "a.ckpt")
    content = AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")
    content["state_dict"] = module.match_checkpoint(content)
    module.load_state_dict(content["state_dict"], strict=False)
    return content


@pytest.mark.parametrize(("encoder", "decoder", "width"), PAIRS, ids=lambda value: str(value))
@pytest.mark.slow
def test_a_pair_trains_generates_and_reloads(encoder, decoder, width, flickr_folder, tmp_path):
    folder = save_captioner(tmp_path / "base", encoder, decoder, width)
    module, data = make(str(folder), flickr_folder)
    assert [len(find_blocks(side)) for side in (module.model.encoder, module.model.decoder)] == [3, 3]
    batch = next(iter(data.val_dataloader()))

    with torch.no_grad():
        whole = module.model.encoder(batch.pixel_values).last_hidden_state
        torch.testing.assert_close(module.captioner.encode(batch), whole)
        assert module.captioner.depth == (0 if encoder == "swin" else 2)

        nll, tokens = module.captioner(batch)
        processor = module.processor
        rows = [[processor.encode_caption(text) for text in texts] for texts in batch.references]
        expected = separate_nll(module.model, whole, rows, processor.start_id, processor.eos_id)
    assert tokens == sum(len(caption) + 1 for row in rows for caption in row)
    torch.testing.assert_close(nll, expected, rtol=1e-4, atol=0)

    # The same captions as transformers' own search from the same pixels.
    ids = module.model.generate(batch.pixel_values, max_length=6, num_beams=2, do_sample=False)
    assert module.generate(batch) == [module.processor.decode(row[1:]) for row in ids]

    fitting, updated = fit(module, data, tmp_path)
    assert updated <= set(module.trained_weights())
    assert {name.split(".")[0] for name in updated} >= {"encoder", "decoder"}
    assert ("enc_to_dec_proj.weight" in updated) == (width != 32)

    other, _ = make(str(folder), flickr_folder)
    reload(fitting, other, tmp_path)
    with torch.no_grad():
        loss = module.eval().captioner(batch)[0]
        torch.testing.assert_close(other.eval().captioner(batch)[0], loss)


@pytest.mark.parametrize(("encoder", "decoder", "width"), [("vit", "gpt2", 16), ("swin", "bert", 32)])
def test_a_new_pair_trains_its_new_cross_attention(encoder, decoder, width, flickr_folder, tmp_path):
    sources = save_encoder_and_decoder(tmp_path, encoder, decoder, width)
    module, data = make(None, flickr_folder, from_encoder_decoder=sources)
    new = {name for name in module.trained_weights() if "cross" in name or name.startswith("enc_to_dec")}
    assert {name.split(".layer.")[-1].split(".h.")[-1][0] for name in new if "cross" in name} == set("012")
    assert ("enc_to_dec_proj.weight" in new) == (width != 32)
    before = {name: weight.detach().clone() for name, weight in module.trained_weights().items()}
    fitting, updated = fit(module, data, tmp_path)
    assert {name for name in new if name.endswith("weight")} <= updated
    assert module.generate(next(iter(data.val_dataloader())))

    torch.manual_seed(99)  # another process has other random numbers
    other, _ = make(None, flickr_folder, from_encoder_decoder=sources)
    assert other.captioner.base_sha256 == module.captioner.base_sha256
    reload(fitting, other, tmp_path)
    weights = dict(module.model.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in other.model.named_parameters())
    with module.captioner.base_weights():
        assert all(torch.equal(weight, before[name]) for name, weight in module.trained_weights().items())


@pytest.mark.slow
def test_a_run_trains_adapters_alone_and_its_checkpoint_holds_no_more(flickr_folder, tmp_path):
    folder = save_captioner(tmp_path / "base", "vit", "gpt2", 16)
    module, data = make(str(folder), flickr_folder, train="lora", lora={"lora_dropout": 0.1})
    module.train()
    training = {name for name, m in module.model.named_modules() if m.training}
    assert training
    assert all(".lora_" in name or name == "enc_to_dec_proj" for name in training)
    assert module.captioner.depth == 0
    fit(module, data, tmp_path)
    fitting, updated = fit(module, data, tmp_path)  # A changes once B is no longer zero
    assert updated == set(module.trained_weights())
    assert "enc_to_dec_proj.weight" in updated

    other, _ = make(str(folder), flickr_folder, train="lora")
    content = reload(fitting, other, tmp_path)
    metadata, names = content[METADATA_KEY], {name.partition("network.")[2] for name in content["state_dict"]}
    assert names == updated  # nothing else is in the file
    assert metadata["base_sha256"] == VitGpt2(str(folder)).captioner.base_sha256  # without adapters too
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        loss = module.eval().captioner(batch)[0]
        torch.testing.assert_close(other.eval().captioner(batch)[0], loss)


def test_newly_initialized_cross_attention_trains_whole_beside_adapters(flickr_folder, tmp_path):
    sources = save_encoder_and_decoder(tmp_path, "vit", "gpt2")
    module, _ = make(None, flickr_folder, from_encoder_decoder=sources, train="lora")
    names = set(module.trained_weights())
    assert "decoder.transformer.h.0.crossattention.q_attn.weight" in names
    assert not any("crossattention" in name and "lora" in name for name in names)
    assert any("attn.c_attn.lora_A" in name for name in names)
