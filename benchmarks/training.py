"""Measure captions per second of a training step beside the alternatives: `python -m benchmarks.training`.

    seq2seq_trainer_*      transformers' Seq2SeqTrainer, one row per caption, fp32 and bf16
    ours_*_pixels          this project from pixels: equal terms
    ours_*                 this project with the feature cache, on a GPU in its memory
    ours_bf16_disk         on a GPU: the cache read from disk
    original_loop          one row per caption, pixels through the model, captions generated in every step

The same images, captions, starting weights and trained blocks. Ours in each precision and the others have a process
each, and run in turn; the median of the rounds counts. Ours reads images or cache from disk; the others have their
pixels in memory. Losses are without dropout. mfu: needed FLOP/s over what the machine reaches in matrix products.
"""

import statistics
import sys
from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import baselines, common
from src.callbacks.feature_cache import FeatureCache
from src.models.freezing import choose_trainable
from src.models.pretrained import load_captioner

ORIGINAL_BATCH = 16  # captions in a step of the original loop
ON_GPU = ("ours_bf16_disk",) if common.DEVICE == "cuda" else ()
OURS = ("ours_fp32_pixels", "ours_fp32", "ours_bf16_pixels", *ON_GPU, "ours_bf16")
METHODS = ("seq2seq_trainer_fp32", *OURS[:2], "seq2seq_trainer_bf16", *OURS[2:], "original_loop")


class Ours:
    """This project's training."""

    def __init__(self, options: dict[str, Any], *overrides: str) -> None:
        self.options, count = options, options["images"]
        num_images = count * (options["steps"] + 3) * 4 // 3  # so many that no epoch ends in a round
        self.config = common.compose_config(
            *common.data_overrides(options["data_dir"], num_images), f"datamodule.num_samples={5 * num_images}",
            f"datamodule.batch_size={count}", f"model.checkpoint={options['checkpoint']}",
            f"model.compile={options['compile']}", *overrides,
        )  # fmt: skip
        self.datamodule, self.module = common.build(self.config)
        self.module.to(common.DEVICE)

    def run(self, method: str) -> float:
        """Return captions per second of one round."""
        return self.fit(method, self.options["steps"]).captions_per_second()

    def fit(self, method: str, steps: int) -> common.StepClock:
        """Train for some steps."""
        self.datamodule.features = None
        folder, device = f"{self.config.paths.output_dir}/feature_cache", "disk" if method.endswith("disk") else "auto"
        cache = FeatureCache(folder, device=device, size_limit_gb=None)
        callbacks = [] if method.endswith("pixels") else [cache]
        precision = common.PRECISIONS[method.split("_")[1]]
        return common.train_steps(self.config, self.datamodule, self.module, steps, precision, callbacks)

    def loss(self, method: str) -> float:
        """Return nats per token of the first images, without dropout."""
        self.module.eval()
        with torch.no_grad(), common.autocast(method), torch.compiler.set_stance("force_eager"):
            nll, tokens = self.module.captioner(self.batch(method))
        return float(nll / tokens)

    def batch(self, method: str) -> Any:
        """Return a training batch; of features where the method reads the cache."""
        self.datamodule.features = None
        batch = next(iter(self.datamodule.train_dataloader())).to(common.DEVICE)
        if not method.endswith("pixels"):
            with torch.no_grad(), common.autocast(method):
                batch.features = self.module.captioner.backbone_features(batch.pixel_values)
            batch.pixels = None
        return batch

    def captions_per_image(self) -> float:
        """Return the captions of a batch by its images."""
        batch = self.batch("pixels")
        return common.count_captions(batch) / len(batch)

    def flops_per_caption(self, method: str) -> float:
        """Return the floating-point operations that a step needs, forward and backward."""
        batch, captioner = self.batch(method), self.module.captioner
        kernels, captioner.kernels = captioner.kernels, "reference"  # operators that torch can count
        with torch.compiler.set_stance("force_eager"):
            flops = common.count_flops(self.step(batch, method))
        captioner.kernels = kernels
        return flops / common.count_captions(batch)

    def step(self, batch: Any, method: str) -> Any:
        """Return a function that makes a step with a learning rate of 0."""
        weights = list(self.module.trained_weights().values())
        optimizer = torch.optim.AdamW(weights, lr=0.0)
        self.module.train()

        def step() -> None:
            with common.autocast(method):
                nll, tokens = self.module.captioner(batch)
            (nll / tokens).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return step

    def profile(self, method: str) -> str:
        """Return the profiler's table of the operators that take most of a step."""
        step = self.step(self.batch(method), method)
        step()
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            step()
        return recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=15)


class Theirs:
    """transformers' model, trained by the alternatives."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options, ours = options, Ours(options)
        self.captions_per_image = ours.captions_per_image
        images = {image.image_id: image for image in ours.datamodule.splits["train"]}
        self.processor, names = ours.module.processor, ours.batch("pixels").image_ids
        self.rows = baselines.caption_rows([images[name] for name in names], self.processor)
        self.model: Any = trainable_model(options["checkpoint"]).to(common.DEVICE)

    def run(self, method: str) -> float:
        """Return captions per second of one round."""
        if method == "original_loop":
            return baselines.time_original_loop(self.model, self.rows[:ORIGINAL_BATCH], self.processor)
        steps = self.options["steps"] if common.DEVICE == "cuda" else 1
        settings = {"bf16": method.endswith("bf16"), "torch_compile": self.options["compile"]}
        return baselines.time_seq2seq(self.model, self.rows, steps, **settings)

    @torch.no_grad()
    def loss(self, method: str) -> float:
        """Return nats per token of the first images, without dropout, by transformers' own loss."""
        self.model.eval()
        with common.autocast(method):
            return float(self.model(**baselines.collate_rows(self.rows, common.DEVICE)).loss)


def trainable_model(checkpoint: str) -> Any:
    """Load transformers' model with the blocks unfrozen that this project trains."""
    model = load_captioner(checkpoint).model
    choose_trainable(model, "last_blocks", 1)
    return model


def measure(options: dict[str, Any], methods: list[str]) -> dict[str, dict[str, float]]:
    """Run the rounds; return columns of the table, by method."""
    names = {method: method[:9] if method in OURS else "theirs" for method in methods}  # ours_fp32, ours_bf16
    sides = {name: common.Isolated(Theirs if name == "theirs" else Ours, options) for name in set(names.values())}
    losses = {method: sides[names[method]].call("loss", method) for method in methods}
    rounds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options["rounds"]):
        for method in methods:
            rounds[method].append(sides[names[method]].call("run", method))
            print(f"{method}: {rounds[method][-1]:.4g} captions/s", file=sys.stderr, flush=True)
    speed = {method: statistics.median(values) for method, values in rounds.items()}
    mfu = {}
    for method in (method for method in methods if method in OURS):
        peak = common.machine_peak(common.DTYPES[method.split("_")[1]])
        mfu[method] = speed[method] * sides[names[method]].call("flops_per_caption", method) / peak
    per_image = {name: side.call("captions_per_image") for name, side in sides.items()}
    images = {method: rate / per_image[names[method]] for method, rate in speed.items()}
    return {"images_per_second": images, "captions_per_second": speed, "loss": losses, "mfu": mfu}


def loss_differences(options: dict[str, Any], methods: list[str]) -> dict[str, float]:
    """Return the largest relative difference of ours to transformers' fp32 losses, over steps without dropout."""
    steps, differences = options["equal_steps"], {}
    plain = ("model.lr_scheduler=null", "model.optimizer.weight_decay=0.0", "model.optimizer.lr=5e-5")
    for method in [method for method in ("ours_fp32", "ours_bf16") if method in methods]:
        ours = Ours(options, *plain, "trainer.gradient_clip_val=1.0")
        images = {image.image_id: image for image in ours.datamodule.splits["train"]}
        remove_dropout(ours.module)
        clock = ours.fit(method, steps)
        theirs = trainable_model(options["checkpoint"])
        remove_dropout(theirs)
        chosen = ([images[name] for name in names] for names in clock.image_ids[:steps])
        batches = [baselines.caption_rows(some, ours.module.processor) for some in chosen]
        expected = baselines.losses_in_order(theirs, batches, lr=5e-5)
        differences[method] = max(abs(float(a) - b) / b for a, b in zip(clock.losses, expected, strict=False))
    return differences


def remove_dropout(model: torch.nn.Module) -> None:
    """Set every dropout rate to 0."""
    for module in model.modules():
        for name in {"p", "attention_dropout"} & vars(module).keys():
            setattr(module, name, 0.0)


def main() -> None:
    parser = common.make_parser(__doc__, METHODS)
    parser.add_argument("--images", type=int, default=16, help="per step, with all their captions")
    parser.add_argument("--steps", type=int, default=4, help="of ours in a round; the others make one on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="ours and the Trainer's by torch.compile")
    parser.add_argument("--equal-steps", type=int, default=0, help="compare the losses of that many steps too")
    parser.add_argument("--memory", action="store_true", help="peak memory of each, in a process of its own")
    parser.add_argument("--profile", action="store_true", help="operators that take most of a step, of ours")
    parser.add_argument("--record", action="store_true", help="append dated rows to benchmarks/RESULTS.md")
    parser.add_argument("--in-process", action="store_true", help="one round here, for --memory")
    options = vars(parser.parse_args())
    methods = options["only"]
    common.silence()
    if options["in_process"]:
        (Ours if methods[0] in OURS else Theirs)(options).run(methods[0])
        common.report("Peak memory", ["GB"], [[common.peak_memory()]], {"gb": common.peak_memory()})
        return
    result: dict[str, Any] = measure(options, methods)
    if options["memory"]:
        same = ["-m", "benchmarks.training", "--checkpoint", options["checkpoint"], "--in-process"]
        same += ["--images", str(options["images"]), "--steps", str(options["steps"])]
        same += ["--compile"] if options["compile"] else []
        same += ["--data-dir", options["data_dir"]] if options["data_dir"] else []
        result["peak_gb"] = {m: common.run_python([*same, "--only", m])["gb"] for m in methods}
    if options["equal_steps"]:
        result["loss_difference"] = loss_differences(options, methods)
    rows = [[method, *(column.get(method) for column in result.values())] for method in methods]
    common.report(f"Training, {options['images']} images a step", ["method", *result], rows, result, options["record"])
    for method in (method for method in methods if options["profile"] and method in OURS):
        print(f"\n{method}\n{Ours(options).profile(method)}")


if __name__ == "__main__":
    main()
