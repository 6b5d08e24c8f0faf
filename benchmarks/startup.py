"""Measure the time to a first caption: src.predict, Captioner and a short transformers script, and of imports.

Each starts in a process of its own, in turn; medians of wall and processor seconds count.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from benchmarks import common

TRANSFORMERS = """
import sys
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

folder, path = sys.argv[1:]
model = VisionEncoderDecoderModel.from_pretrained(folder).eval()
processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
pixels = processor(Image.open(path).convert("RGB"), return_tensors="pt").pixel_values
ids = model.generate(pixels, max_length=32, num_beams=4)
print(tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip())
"""
CAPTIONER = """
import sys
from src.captioner import Captioner

print(Captioner.from_checkpoint(sys.argv[1]).caption(sys.argv[2])[0])
"""


def seconds(arguments: list[str]) -> list[float]:
    """Return wall and processor seconds of this Python with arguments."""
    start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=common.ROOT, check=True, capture_output=True)
    wall, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return [wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime]


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run", default="src/demo/flickr", help="a finished run, whose checkpoint predict opens too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = str(Path(folder) / "image.png")
        Image.fromarray(torch.randint(256, (300, 400, 3), dtype=torch.uint8).numpy()).save(image)
        commands = {f"import_{name}": ["-c", f"import {name}"] for name in ("torch", "transformers", "src.captioner")}
        commands["transformers"] = ["-c", TRANSFORMERS, options.checkpoint, image]
        commands["predict"] = ["-m", "src.predict", image, f"checkpoint={options.checkpoint}"]
        commands["predict_run"] = ["-m", "src.predict", image, f"checkpoint={options.run}"]
        commands["captioner"] = ["-c", CAPTIONER, options.checkpoint, image]
        rounds = [{name: seconds(command) for name, command in commands.items()} for _ in range(options.rounds)]
    found = {name: [statistics.median(one[name][part] for one in rounds) for part in (0, 1)] for name in commands}
    rows = [[name, *values] for name, values in found.items()]
    common.report("First caption of one image", ["command", "seconds", "processor seconds"], rows, found)


if __name__ == "__main__":
    main()
