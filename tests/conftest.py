"""What every test may ask for."""

import os
import sys
from pathlib import Path

# Without bytecode, each process that a test starts compiles torch and transformers anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for tiny tensors threads cost more than they save

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ["PROJECT_ROOT"] = str(ROOT)  # as train.py and eval.py set it


SLOW_FIXTURES = {"finished", "fitted", "untrained", "browser"}  # they train, or start a program


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first, so that no worker of `-n 2` is left alone with one at the end."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real samples beside the checkout; the tests that need them are skipped where there are none."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real samples are not beside this checkout")
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A captioner folder of 3 + 3 blocks, 32 pixels and 32 wide, weights at random, no dropout."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast, VisionEncoderDecoderConfig, VisionEncoderDecoderModel

    from tests.models.folders import encoder_config, processor
    from tests.models.random_captioner import decoder_config

    folder, end = tmp_path_factory.mktemp("checkpoint"), "<|endoftext|>"
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(["a red square above a blue circle"] * 4, vocab_size=300, special_tokens=[end])
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), end)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **special)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    torch.manual_seed(0)
    decoder = decoder_config("gpt2", vocab_size=len(tokenizer), initializer_range=0.02, **ids)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder_config("vit", intermediate_size=64), decoder
    )
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = tokenizer.eos_token_id
    VisionEncoderDecoderModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor("vit").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def flickr_folder(tmp_path_factory) -> Path:
    """Forty synthetic scenes in Flickr8k's layout."""
    from src.demo.synthetic.datamodules import write_scenes

    folder = tmp_path_factory.mktemp("flickr")
    write_scenes(folder, 40, "plain", size=32)
    return folder
