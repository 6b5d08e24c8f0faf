"""A step of the search gives the logits of the whole caption, whatever beams were copied."""

import torch

from src.models.kernels.beam_search import decode_step, prefill
from tests.models.random_captioner import captioner, random_states


def test_logits_of_copied_beams_are_those_of_their_whole_captions():
    model, states, beams = captioner(), random_states(2), 3
    cache = prefill(model.decoder, states, beams, max_length=6)
    captions = torch.zeros(6, 0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        captions = torch.cat([captions, torch.randint(0, 60, (6, 1), generator=generator)], 1)
        found = decode_step(model.decoder, captions[:, -1], cache)
        rows = states.repeat_interleave(beams, 0)
        expected = model(encoder_outputs=(rows,), decoder_input_ids=captions).logits[:, -1]
        torch.testing.assert_close(found, expected)
        assert cache.get_seq_length() == step + 1
        chosen = torch.randint(0, beams, (2, beams), generator=generator) + torch.tensor([[0], [beams]])
        cache.reorder_cache(chosen.flatten())
        captions = captions[chosen.flatten()]
