"""Our captions are those of `model.generate()`."""

from types import SimpleNamespace

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from src.models.generation import (
    generate_captions,
    generate_ids,
    generate_nbest,
    generation_config,
    resolve_generation,
    sample_captions,
)
from src.utils.errors import UserError
from tests.models.random_captioner import END, captioner, freeze_all_but, random_states, separate_nll


class Digits(SimpleNamespace):
    """What generation needs of a processor; captions are numbers."""

    start_id, eos_id, pad_id = END, END, END
    max_positions = 64
    image = SimpleNamespace(height=32, width=32)

    def decode(self, ids):
        tokens = ids[: ids.index(END)] if END in ids else ids
        return " ".join(map(str, tokens))


def ours(model, states, max_length, num_beams, **settings):
    settings = {"max_length": max_length, "num_beams": num_beams, **settings}
    return generate_ids(model, states, generation_config(Digits(), resolve_generation(settings, Digits())))


def theirs(model, states, max_length, num_beams, **settings):
    return model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states.clone()), max_length=max_length,
        num_beams=num_beams, **{"do_sample": False, **settings},
        decoder_start_token_id=END, eos_token_id=END, pad_token_id=END,
    )  # fmt: skip


SETTINGS = {
    "min_length": 7, "length_penalty": 3.0, "no_repeat_ngram_size": 2, "repetition_penalty": 1.7,
    "do_sample": True, "temperature": 0.5, "top_p": 0.6,
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("num_beams", [1, 4])
def test_each_setting_gives_the_tokens_of_generate(name, num_beams):
    model, states = captioner(), random_states(8)
    with torch.no_grad():
        model.decoder.lm_head.weight[END] *= 2
    settings = {name: SETTINGS[name]}
    if name in ("do_sample", "temperature", "top_p"):
        settings, num_beams = settings | {"do_sample": True, "seed": num_beams}, 1
    found, torchs = ours(model, states, 12, num_beams, **settings), settings | {"top_k": 0}
    torch.manual_seed(torchs.pop("seed", 0))
    assert torch.equal(found, theirs(model, states, 12, num_beams, **torchs))
    if (name, num_beams) != ("length_penalty", 1):
        assert found.tolist() != ours(model, states, 12, num_beams).tolist()  # it acts


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"max_length": 65}, r"model\.generation\.max_length=65; expected .*65|64; set model\.generation\.max_length"),
        ({"num_beams": 0}, r"num_beams=0; expected a value greater than or equal to 1"),
        ({"top_p": 0.0}, r"top_p=0\.0; expected a value greater than 0"),
        ({"no_repeat_ngram_size": 1.5}, r"no_repeat_ngram_size=1\.5; expected"),
        ({"min_length": 9, "max_length": 8}, r"min_length=9 with model\.generation\.max_length=8; expected at most"),
        ({"beams": 3}, r"beams=3; expected one of max_length, .* as its name"),
    ],
)
def test_settings_out_of_range_are_named(settings, match):
    with pytest.raises(UserError, match=match):
        resolve_generation(settings, Digits())


@pytest.mark.parametrize("num_beams", [1, 2, 5, 8])
def test_tokens_are_those_of_generate(num_beams):
    model, states = captioner(), random_states(8)
    with torch.no_grad():
        model.decoder.lm_head.weight[END] *= 2  # so that some captions end early
    found = ours(model, states, 14, num_beams)
    assert torch.equal(found, theirs(model, states, 14, num_beams))
    assert len({tuple(row) for row in found.tolist()}) > 1  # the images matter
    ends = (found[:, 1:-1] == END).any(1)
    assert ends.any()
    assert not ends.all()


def test_the_next_search_uses_the_weights_after_a_step():
    """Packed weights of one search must not outlive it: fused optimizers do not raise the version of a weight."""
    model, states = captioner(), random_states(4)
    weights = freeze_all_but(model, 1)
    optimizer = torch.optim.AdamW(weights, lr=0.3, fused=True)
    before = ours(model, states, 10, 2)
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    model.eval()
    after = ours(model, states, 10, 2)
    assert torch.equal(after, theirs(model, states, 10, 2))
    assert after.tolist() != before.tolist()


def test_bf16_searches_with_bf16_products():
    model, states = captioner(), random_states(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(model, states, 10, 4)
    exact = theirs(model, states, 10, 4)
    assert (found[:, 1] == exact[:, 1]).float().mean() >= 0.5  # rounding may turn a close call


@pytest.mark.parametrize("settings", [{"num_beams": 1}, {"num_beams": 5, "length_penalty": 0.5},
                                      {"num_beams": 4, "do_sample": True, "temperature": 0.5, "seed": 1}])  # fmt: skip
def test_hypotheses_have_the_score_that_the_loss_gives_them(settings):
    """The mean log-probability per token, EOS included where the search came to it."""
    model, states = captioner(), random_states(4)
    with torch.no_grad():
        model.get_output_embeddings().weight[END] *= 2
    settings |= {"max_length": 9}
    found = generate_nbest(model, Digits(), states, settings)
    if not settings.get("do_sample"):
        assert [best[0].caption for best in found] == generate_captions(model, Digits(), states, settings)
    compared = 0
    for state, hypotheses in zip(states, found, strict=True):
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert 1 <= len(scores) <= settings["num_beams"]
        assert scores == sorted(scores, reverse=True) or "length_penalty" in settings
        for caption, score in hypotheses:
            ids = [int(token) for token in caption.split()]
            if len(ids) < 8:  # 8 tokens and the start token are 9: cut before EOS
                nll = separate_nll(model, state[None], [[ids]]).item()
                assert score == pytest.approx(-nll / (len(ids) + 1), abs=1e-4)
                compared += 1
    assert compared


def test_ids_that_decode_to_the_same_text_are_one_hypothesis():
    class Mute(Digits):
        def decode(self, ids):
            return "a dog"

    settings = {"max_length": 8, "num_beams": 4}
    found = generate_nbest(captioner(), Mute(), random_states(2), settings)
    assert [[hypothesis.caption for hypothesis in row] for row in found] == [["a dog"]] * 2
    best = generate_nbest(captioner(), Digits(), random_states(2), settings)
    assert [row[0].score for row in found] == [row[0].score for row in best]


def test_samples_are_those_of_generate_and_of_the_seed():
    model, states = captioner(), random_states(3)
    with torch.no_grad():
        model.decoder.lm_head.weight[END] *= 2
    settings = (model, Digits(), states, 4, 9)
    torch.manual_seed(3)
    found, drawn = sample_captions(*settings, seed=5), torch.rand(1)
    reference = sample_captions(*settings, seed=5, on_cpu=False)
    assert all(map(torch.equal, found, reference))
    assert not torch.equal(found.ids, sample_captions(*settings, seed=6).ids)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))  # the run's own generator goes on as before
    assert found.ids.shape == (3, 4, 8)
    for ids, length in zip(found.ids.flatten(0, 1).tolist(), found.lengths.flatten().tolist(), strict=True):
        assert length == (ids.index(END) + 1 if END in ids else len(ids))
        assert set(ids[length:]) <= {END}
    assert len({tuple(ids) for ids in found.ids.flatten(0, 1).tolist()}) > 1
    assert found.lengths.min() < 8


def test_samples_follow_the_distribution_of_the_decoder():
    model, states = captioner(), random_states(1)
    found = sample_captions(model, Digits(), states, 4000, 2)
    logits = model(encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_input_ids=torch.tensor([[END]]))
    expected = logits.logits[0, 0].softmax(-1)
    frequencies = found.ids.flatten().bincount(minlength=len(expected)) / 4000
    assert (frequencies - expected).abs().max() < 0.03
    assert found.lengths.eq(1).all()
