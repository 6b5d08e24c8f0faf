"""Measure captions per second of beam search beside `generate()`: `python -m benchmarks.generation`.

    generate_fp32           `model.generate(pixel_values)`, as a user would call it
    generate_bf16           the same, the model cast to bf16
    generate_bf16_autocast  the same under autocast, the model in fp32
    ours_fp32, ours_bf16    this project's encoder and beam search

From pixels to captions; the median of the rounds counts. `same_captions`: ours in fp32 equal `generate_fp32`.
"""

import copy
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import common

METHODS = ("generate_fp32", "generate_bf16", "generate_bf16_autocast", "ours_fp32", "ours_bf16")


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
    settings |= ids | {"pad_token_id": processor.pad_id}

    def theirs(method: str) -> list[str]:
        cast = method == "generate_bf16"
        with common.autocast(method if method.endswith("autocast") else ""):
            ids = (model_bf16 if cast else model).generate(pixels.bfloat16() if cast else pixels, **settings)
        return [processor.decode(row) for row in ids]

    def ours(method: str) -> list[str]:
        with common.autocast(method):
            return module.generate(batch)

    run = {method: theirs if method.startswith("generate") else ours for method in METHODS}
    return {method: lambda method=method: run[method](method) for method in METHODS}, len(pixels)


def main() -> None:
    parser = common.make_parser(__doc__, METHODS)
    parser.add_argument("--images", type=int, default=16, help="in one batch")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=16, help="tokens; random weights seldom end early")
    parser.add_argument("--rounds", type=int, default=3)
    options = vars(parser.parse_args())
    common.silence()
    methods, num_images = make_methods(options)
    speeds, captions = defaultdict(list), {}
    for turn in range(options["rounds"] + 1):
        for name in options["only"]:
            start = time.perf_counter()
            captions[name] = methods[name]()
            if turn:  # the first warms up
                speeds[name].append(num_images / (time.perf_counter() - start))
    speed = {name: statistics.median(values) for name, values in speeds.items()}
    same = captions["ours_fp32"] == captions["generate_fp32"]
    result = {"captions_per_second": speed, "same_captions": same}
    rows = [[name, value, value / speed["generate_fp32"]] for name, value in speed.items()]
    title = f"Generation, {options['beams']} beams, up to {options['max_length']} tokens"
    common.report(title, ["method", "captions/s", "over generate_fp32"], rows, result)


if __name__ == "__main__":
    main()
