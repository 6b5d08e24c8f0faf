"""An exported captioner captions as before, loaded by plain transformers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from filelock import FileLock
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BeitConfig,
    DeiTImageProcessor,
    VisionEncoderDecoderModel,
    ViTImageProcessor,
)

from src.captioner import Captioner
from src.datamodule.images.decode import load_image
from src.datamodule.images.transform import ImageTransform
from src.datamodule.processor import load_processor, with_image_size
from src.demo.synthetic.datamodules import write_scenes
from src.export import PREFIX, export, main
from src.models.pretrained import load_captioner, resize_positions
from src.models.restore import open_captioner
from src.models.vit_gpt2 import VitGpt2
from src.utils.errors import UserError
from src.utils.files import SCRATCH_MARKER
from tests.faults.small_disk import small_disk
from tests.saved_run import save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "run"
    save_run(folder, tiny_checkpoint)
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    return export(run, tmp_path_factory.mktemp("out") / "captioner")


def card_code(exported: Path) -> str:
    """The code of the model card, for every path of the command line."""
    code = (exported / "README.md").read_text().split("```python\n")[1].split("```")[0]
    load, caption = code.split("\npixels = ")
    caption = f"pixels = {caption}".replace('"image.jpg"', "path").replace("print(", "captions.append(")
    loop = "".join(f"    {line}\n" for line in caption.splitlines())
    return (
        "import json, sys\ncaptions = []\n"
        + load.replace('folder = "."', "folder = sys.argv[1]")
        + f"\nfor path in sys.argv[2:]:\n{loop}print(json.dumps(captions))\n"
    )


@pytest.mark.slow
def test_the_cards_code_captions_images_as_the_product_does(run, exported, tmp_path):
    """In a process without this project on its path."""
    write_scenes(tmp_path / "scenes", 40, "plain", seed=5, size=32)
    images = sorted((tmp_path / "scenes" / "Images").iterdir())
    expected = Captioner.from_checkpoint(run, precision="32").caption(images)
    assert Captioner.from_checkpoint(exported, precision="32").caption(images) == expected

    (tmp_path / "plain.py").write_text(card_code(exported))
    command = [sys.executable, "-P", str(tmp_path / "plain.py"), str(exported), *map(str, images)]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    captions = [" ".join(text.split()) for text in json.loads(done.stdout.splitlines()[-1])]
    assert captions == expected
    assert len(set(expected)) > 10


def test_the_folder_holds_the_layout_of_transformers_and_no_pickle(exported, tmp_path):
    settings = {"config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json"}
    names = {path.name for path in exported.iterdir()}
    assert names == {*settings, "model.safetensors", "tokenizer.json", "README.md"}
    config = json.loads((exported / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # which transformers 4 has too
    assert not isinstance(config.get("extra_special_tokens"), list)
    (tmp_path / "new").touch()
    (tmp_path / "folder").mkdir()
    assert {path.stat().st_mode for path in exported.iterdir()} == {(tmp_path / "new").stat().st_mode}
    assert exported.stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_export_writes_the_generation_settings_of_scoring_and_none_of_the_base(tiny_checkpoint, tmp_path):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    before = {"no_repeat_ngram_size": 2, "forced_bos_token_id": 5, "num_return_sequences": 3, "max_new_tokens": 3,
              "repetition_penalty": 2.0, "length_penalty": 9.0, "do_sample": True}  # fmt: skip
    (base / "generation_config.json").write_text(json.dumps(before))
    save_run(tmp_path / "run", base)
    out = export(tmp_path / "run", tmp_path / "out")
    settings = json.loads((out / "generation_config.json").read_text())
    assert (settings["max_length"], settings["num_beams"], settings["do_sample"]) == (12, 3, False)
    assert not {name for name, value in before.items() if settings.get(name) == value}


def test_another_image_size_interpolates_positions_and_is_exported(tiny_checkpoint, tmp_path, flickr_folder):
    paths = sorted((flickr_folder / "Images").iterdir())[:5]
    base, module = load_captioner(str(tiny_checkpoint)).model, VitGpt2(str(tiny_checkpoint), image_size=48)
    pixels = torch.stack([module.processor.image(load_image(path)) for path in paths])
    assert pixels.shape == (5, 3, 48, 48)
    with torch.no_grad():
        expected = base.encoder(pixels, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(module.model.encoder(pixels).last_hidden_state, expected)
    assert module.captioner.base_sha256 == VitGpt2(str(tiny_checkpoint)).captioner.base_sha256
    assert module.captioner.backbone_fingerprint() != VitGpt2(str(tiny_checkpoint)).captioner.backbone_fingerprint()

    module = save_run(tmp_path / "run", tiny_checkpoint, image_size=48)
    captions = Captioner.from_checkpoint(tmp_path / "run", precision="32").caption(paths)
    folder = export(tmp_path / "run", tmp_path / "out")
    assert Captioner.from_checkpoint(folder, precision="32").caption(paths) == captions
    model = VisionEncoderDecoderModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    images = [Image.fromarray(load_image(path).permute(1, 2, 0).numpy()) for path in paths]
    ids = model.generate(processor(images, return_tensors="pt").pixel_values)
    assert [module.processor.decode(row) for row in ids] == captions


@pytest.mark.parametrize("processor", [ViTImageProcessor(size={"height": 36, "width": 36}),
                                       DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size=36),
                                       DeiTImageProcessor(size={"shortest_edge": 40}, crop_size=36)])  # fmt: skip
def test_an_image_processor_gives_another_size_of_the_same_part(processor):
    found = ImageTransform.from_processor(with_image_size(processor, 72))
    expected = ImageTransform.from_processor(processor)
    assert (found.height, found.width, found.resample) == (72, 72, expected.resample)
    assert found.resize in (80, (80, 80)) if expected.crop else found.resize == (72, 72)


def test_an_image_size_that_the_encoder_cannot_take_is_rejected(tiny_checkpoint):
    patch = load_captioner(str(tiny_checkpoint)).model.encoder.config.patch_size
    match = rf"model\.image_size={3 * patch + 1}; expected a multiple of {patch}, .*; set model\.image_size={3 * patch}"
    with pytest.raises(UserError, match=match):
        load_processor(str(tiny_checkpoint), image_size=3 * patch + 1)
    encoder = AutoModel.from_config(BeitConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(UserError, match=r"model\.image_size=48 with BeitModel; expected null: only position"):
        resize_positions(encoder, 48)


def test_adapters_are_merged_into_the_weights(tiny_checkpoint, tmp_path, flickr_folder):
    module = save_run(tmp_path / "run", tiny_checkpoint, train="lora")
    captioner = Captioner.from_checkpoint(export(tmp_path / "run", tmp_path / "out"), precision="32")
    assert captioner.model.state_dict().keys() == open_captioner(tiny_checkpoint).model.state_dict().keys()
    paths = sorted((flickr_folder / "Images").iterdir())[:5]
    pixels = torch.stack([captioner.processor.image(captioner.load(path)) for path in paths])
    with torch.no_grad():
        states = module.model.encoder(pixels).last_hidden_state
    assert torch.allclose(captioner.encode(pixels), states, atol=1e-5)
    assert captioner.caption(paths) == module.captioner.generate(states)


def test_half_precision_halves_the_file_and_refuses_weights_beyond_its_range(exported, tiny_checkpoint, tmp_path):
    base = shutil.copytree(exported, tmp_path / "base")
    small = export(base, tmp_path / "small", dtype="float16")
    size, half = ((folder / "model.safetensors").stat().st_size for folder in (exported, small))
    assert half < 0.6 * size
    assert "in float16" in (small / "README.md").read_text()
    found = open_captioner(base)
    torch.nn.init.constant_(found.model.encoder.layernorm.bias, 1e5)
    found.model.save_pretrained(base)
    with pytest.raises(UserError, match="dtype=float16: its weights are not finite"):
        export(base, tmp_path / "out", dtype="float16")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "small"}


def test_a_saved_folder_can_be_exported_again(exported, tmp_path):
    (tmp_path / "again").mkdir()  # an empty folder may exist
    again = export(exported, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"dtype": "int8"}, "dtype='int8'; expected one of float32, float16, bfloat16"),
        ({"out": "full"}, "exists and is not empty; expected a new folder"),
        ({"out": "file.txt"}, "exists and is not empty"),
        ({"out": "file.txt/out"}, "cannot be written"),
        ({"checkpoint": "none.ckpt"}, "checkpoint='none.ckpt' does not exist"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, tmp_path, monkeypatch, settings, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UserError, match=match):
        export(**{"checkpoint": run, "out": "new", **settings})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "full"]


def test_a_disk_without_room_is_one_line_and_leaves_nothing(run, tmp_path):
    with small_disk(tmp_path / "disk", 200) as disk:
        with pytest.raises(UserError, match=rf"^out='{disk}/out' cannot be written \(.*free some space"):
            export(run, disk / "out")
        assert [path.name for path in disk.iterdir() if path.name != "lost+found"] == []


def test_leftovers_of_killed_exports_are_removed_and_foreign_folders_stay(run, tmp_path):
    killed, running, foreign = (tmp_path / f"{PREFIX}{name}" for name in ("killed", "running", "foreign"))
    for folder in (killed, running, foreign, tmp_path / "visible"):
        folder.mkdir()
        (folder / "model.safetensors").touch()
    for folder in (killed, running, tmp_path / "visible"):
        (folder / SCRATCH_MARKER).touch()
    with FileLock(running / SCRATCH_MARKER):  # another export is at work
        export(run, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {foreign.name, running.name, "out", "visible"}


def test_the_folder_goes_to_a_private_repository_of_the_hub(run, tmp_path, monkeypatch, capsys):
    hub = Mock()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    main([f"checkpoint={run}", f"out={tmp_path / 'out'}", "push_to_hub=me/captioner"])
    hub.create_repo.assert_called_once_with("me/captioner", private=True, exist_ok=True)
    assert hub.upload_folder.call_args.kwargs["folder_path"] == tmp_path / "out"
    assert "loads it" in capsys.readouterr().out


def test_an_upload_that_fails_is_one_line_and_leaves_the_folder(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Mock(side_effect=OSError("no connection\nmore")))
    with pytest.raises(UserError, match=r"push_to_hub='closed/x' failed \(no connection\).* is whole") as caught:
        export(run, tmp_path / "out", push_to_hub="closed/x")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out" / "model.safetensors").is_file()
