"""Measure captions per second of beam search beside `generate()`: `python -m benchmarks.generation`.

    generate_fp32           `model.generate(pixel_values)`, as a user would call it
    generate_bf16           the same, the model cast to bf16
    generate_bf16_autocast  the same under autocast, the model in fp32
    ours_fp32, ours_bf16    this project's encoder and beam search
    onnx_fp32, onnx_int8    with --onnx: the exported graphs in ONNX Runtime, an image at a time; int8: dynamic

From pixels to captions; the median of the rounds counts. same captions: the fraction equal to `generate_fp32`'s.
"""

import copy
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import common
from src.models.generation import generation_config

METHODS = ("generate_fp32", "generate_bf16", "generate_bf16_autocast", "ours_fp32", "ours_bf16")
ONNX = ("onnx_fp32", "onnx_int8")


def make_methods(options: dict[str, Any]) -> tuple[dict[str, Callable[[], list[str]]], int]:
    """Return method -> what generates the captions of one batch, and the number of images."""
    config = common.compose_config(
        *common.data_overrides(options["data_dir"]), f"datamodule.batch_size={options['images']}",
        f"model.checkpoint={options['checkpoint']}", f"model.generation.num_beams={options['beams']}",
        f"model.generation.max_length={options['max_length']}",
    )  # fmt: skip
    datamodule, module = common.build(config)
    module.to(common.DEVICE).eval()
    batch = next(iter(datamodule.train_dataloader())).to(common.DEVICE)
    processor, pixels = module.processor, batch.pixel_values
    model, model_bf16 = module.model, copy.deepcopy(module.model).to(torch.bfloat16)
    settings = {"max_length": options["max_length"], "num_beams": options["beams"], "do_sample": False}
    ids = {"decoder_start_token_id": processor.start_id, "eos_token_id": processor.eos_id}
    all_settings = settings | ids | {"pad_token_id": processor.pad_id}

    def theirs(method: str) -> list[str]:
        cast = method == "generate_bf16"
        with common.autocast(method if method.endswith("autocast") else ""):
            ids = (model_bf16 if cast else model).generate(pixels.bfloat16() if cast else pixels, **all_settings)
        return [processor.decode(row) for row in ids]

    def ours(method: str) -> list[str]:
        with common.autocast(method):
            return module.generate(batch)

    def exported(method: str) -> list[str]:
        ids = [onnx_caption.generate(one[None], graphs[method], as_dict) for one in pixels.numpy()]
        return [processor.decode(row) for row in ids]

    run = {method: theirs if method.startswith("generate") else ours for method in METHODS}
    if options["onnx"]:
        from src.models import onnx_caption

        run |= dict.fromkeys(ONNX, exported)
        graphs, as_dict = export_graphs(module), generation_config(processor, settings).to_diff_dict()
    return {method: lambda method=method: run[method](method) for method in run}, len(pixels)


def export_graphs(module: Any) -> dict[str, list[Any]]:
    """Return method -> the two ONNX graphs, opened: as exported, and with int8 weights."""
    from onnxruntime.quantization import quantize_dynamic

    from src.models.onnx_caption import load_graphs
    from src.models.onnx_export import write_onnx

    with tempfile.TemporaryDirectory(prefix="benchmark-") as root:
        folders = [Path(root) / name for name in ONNX]
        write_onnx(module.model, module.processor, folders[0], module.captioner.generation)
        folders[1].mkdir()
        for file in folders[0].glob("*.onnx"):
            quantize_dynamic(file, folders[1] / file.name)
        return dict(zip(ONNX, map(load_graphs, folders), strict=True))


def main() -> None:
    parser = common.make_parser(__doc__, METHODS)
    parser.add_argument("--images", type=int, default=16, help="in one batch")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=16, help="tokens; random weights seldom end early")
    parser.add_argument("--onnx", action="store_true", help="also the exported graphs, on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    options = vars(parser.parse_args())
    common.silence()
    methods, num_images = make_methods(options)
    speeds, captions = defaultdict(list), {}
    for turn in range(options["rounds"] + 1):
        for name in [*options["only"], *(ONNX if options["onnx"] else ())]:
            start = time.perf_counter()
            captions[name] = methods[name]()
            if turn:  # the first warms up
                speeds[name].append(num_images / (time.perf_counter() - start))
    speed = {name: statistics.median(values) for name, values in speeds.items()}
    first = captions["generate_fp32"]
    same = {name: sum(map(str.__eq__, found, first)) / len(first) for name, found in captions.items()}
    result = {"captions_per_second": speed, "same_captions": same}
    rows = [[name, value, value / speed["generate_fp32"], same[name]] for name, value in speed.items()]
    title = f"Generation, {options['beams']} beams, up to {options['max_length']} tokens"
    common.report(title, ["method", "captions/s", "over generate_fp32", "same captions"], rows, result)


if __name__ == "__main__":
    main()
