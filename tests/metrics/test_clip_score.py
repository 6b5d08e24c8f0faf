"""CLIPScore by its formula, with a tiny random CLIP."""

import json

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from src.metrics.clip_score import ClipScorer
from src.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    letters = [*"abcdefghijklmnopqrstuvwxyzA"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=77)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = size | {"vocab_size": len(words), "eos_token_id": len(words) - 1, "bos_token_id": len(words) - 2}
    torch.manual_seed(0)
    settings = {"vision_config": size | {"image_size": 32, "patch_size": 16}, "text_config": text, "projection_dim": 6}
    CLIPModel(CLIPConfig(**settings)).save_pretrained(tmp_path)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(tmp_path)
    return tmp_path


def test_scores_are_those_of_the_formula(folder):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(3)]
    captions, references = ["a dog", "two cats", "a bird"], [["a dog"], ["cats", "two cats"], ["the sky"]]
    scores = ClipScorer(str(folder)).score(images, captions, references)
    model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    texts = [f"A photo depicts {caption}" for caption in captions]
    with torch.no_grad():
        output = model(**processor(text=texts, images=images, return_tensors="pt", padding=True))
    cosine = (output.image_embeds * output.text_embeds).sum(1).numpy()
    clip = 2.5 * np.maximum(cosine, 0)
    np.testing.assert_allclose(scores["clip_score"].per_image, clip, atol=1e-5)
    np.testing.assert_allclose(scores["ref_clip_score"].per_image[:2], (2 * clip / (clip + 1))[:2], atol=1e-5)


def test_a_folder_without_clip_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"metrics.clip=.*; expected a folder or hub id of a CLIP model"):
        ClipScorer(str(tmp_path))
