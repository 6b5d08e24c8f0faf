"""Build the untrained tiny captioner: ViT + GPT-2 of about 2 M weights, and its tokenizer.

    python -m src.demo.build_tiny folder=data/vit_gpt2_tiny_untrained

writes a folder as `save_pretrained` does. `+demo=pretrain_tiny` trains it on synthetic scenes.
"""

import random
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from transformers import (
    GPT2Config,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from src.demo.synthetic.medical import report, sample_figure
from src.demo.synthetic.scenes import STYLES, describe_scene, sample_scene
from src.utils.entry import parse_command, run_command

HERE = Path(__file__).parent
SHIPPED = HERE / "vit_gpt2_tiny"
IMAGE_SIZE, PATCH_SIZE = 96, 12  # pixels: 64 patches and the class token
WIDTH, HEADS, BLOCKS = 128, 4, 4
MAX_POSITIONS = 128  # tokens of one caption, its start token included
VOCABULARY = 3072
EMBEDDING_STD = 0.08
END = "<|endoftext|>"  # starts, ends and pads, as in GPT-2
IMAGES_DESCRIBED = 2000  # of each synthetic dataset, from whose captions the tokenizer learns
WORD_WEIGHT = 40  # how often the tokenizer sees each word of the lists


def build_tiny(folder: str | Path, seed: int = 0) -> Path:
    """Write the untrained model, its image processor and its tokenizer; return the folder."""
    folder, tokenizer = Path(folder), train_tokenizer()
    end = tokenizer.eos_token_id
    image: Any = {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "hidden_size": WIDTH}
    image |= {"intermediate_size": 4 * WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS}
    text: Any = {"vocab_size": len(tokenizer), "n_positions": MAX_POSITIONS, "n_embd": WIDTH, "n_layer": BLOCKS}
    dropout: Any = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    encoder = ViTConfig(**image, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    decoder = GPT2Config(**text, **dropout, n_head=HEADS, bos_token_id=end, eos_token_id=end)
    config: Any = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = end
    torch.manual_seed(seed)
    model: Any = VisionEncoderDecoderModel(config)
    # Embeddings stay frozen in fine-tuning and pretraining has few words: those of the others must be long
    # enough for the last block to point at them.
    torch.nn.init.normal_(model.decoder.get_input_embeddings().weight, std=EMBEDDING_STD)
    model.generation_config.update(decoder_start_token_id=end, eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE: words of the synthetic datasets and the lists mostly whole, other text in pieces."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(corpus(), VOCABULARY, min_frequency=2, special_tokens=[END], show_progress=False)
    tokens = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), END)
    whole = Tokenizer.from_str(bpe.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=whole, model_max_length=MAX_POSITIONS, **tokens)


def corpus() -> list[str]:
    """Return the text that the tokenizer learns from, the same on every call."""
    lines = []
    for style in STYLES:
        for index in range(IMAGES_DESCRIBED):
            rng = random.Random(f"tokenizer:{style}:{index}")
            lines += describe_scene(sample_scene(rng, style), rng)
    for index in range(IMAGES_DESCRIBED):
        rng = random.Random(f"tokenizer:phantoms:{index}")
        lines.append(report(sample_figure(rng), rng))
    for name in ("everyday_words.txt", "medical_words.txt"):
        words = (HERE / name).read_text(encoding="utf-8").split()
        lines += [f" {word}" for word in words for _ in range(WORD_WEIGHT)]
        lines += [word.capitalize() for word in words for _ in range(WORD_WEIGHT // 8)]
    return lines


def main(arguments: list[str]) -> None:
    """Parse `key=value` arguments and write the untrained folder."""
    print(build_tiny(**parse_command(arguments, {"folder": "data/vit_gpt2_tiny_untrained", "seed": 0})))


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
