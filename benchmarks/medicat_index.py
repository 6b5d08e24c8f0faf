"""How long MedICaT's whole index takes to read, and how much memory: `python -m benchmarks.medicat_index`.

The release cannot be shipped, so its 217,060 lines are made by repeating real lines with new ids (131,410
papers, as in the release). The folder of figures holds a picture of one pixel for every line: the reader
lists the folder and opens none. Reading and splitting is measured in a process of its own; with --datamodule
once more by the data module, whose process holds torch and Lightning too and looks at each picture's header.
Prints a table, then one line of JSON; ends with status 1 when the reader needs more than 15 s or 1 GB.
"""

import argparse
import hashlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

LINES = 217_060
PAPERS = 131_410
SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "medicat"
MAX_SECONDS = 15.0
MAX_MEGABYTES = 1000.0


def write_index(folder: Path, sample: Path, lines: int) -> None:
    """Write `lines` rows with new ids, and a picture of one pixel for each."""
    rows = [
        json.loads(line) for file in sorted(sample.glob("s2_*.jsonl")) for line in file.open(encoding="utf-8")
    ]
    if not rows:
        sys.exit(f"{sample} holds no s2_*.jsonl; expected MedICaT lines to repeat; give --sample")
    figures, pixel = folder / "figures", io.BytesIO()
    figures.mkdir()
    Image.new("L", (1, 1)).save(pixel, "png")
    with open(folder / "index.jsonl", "w", encoding="utf-8") as file:
        for number in range(lines):
            row = dict(rows[number % len(rows)])
            row["pdf_hash"] = hashlib.sha1(str(number % PAPERS).encode()).hexdigest()
            row["fig_uri"] = f"{2 + number // PAPERS}-Figure{1 + number // PAPERS}-1.png"
            file.write(json.dumps(row) + "\n")
            (figures / f"{row['pdf_hash']}_{row['fig_uri']}").write_bytes(pixel.getvalue())


def measure_reader(folder: Path) -> dict[str, float]:
    """Read and split the index in this process: seconds, and the peak of resident memory in MB."""
    from src.datamodule.splits import split_table
    from src.datamodule.readers.medicat import read_medicat

    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    table = read_medicat(folder)
    read = time.perf_counter()
    table.check(0.0)
    splits = split_table(table)
    return {
        "lines": table.rows_read,
        "images": len(table.images),
        "train_images": len(splits["train"]),
        "index_megabytes": (folder / "index.jsonl").stat().st_size / 1e6,
        "read_seconds": read - start,
        "split_seconds": time.perf_counter() - read,
        "cpu_seconds": time.process_time() - cpu,  # on a busy machine the better measure
        "peak_megabytes": _peak(),
        "imports_megabytes": before,
    }


def measure_datamodule(folder: Path) -> dict[str, float]:
    """`MedicatDataModule.setup()` in this process, as a training run does it."""
    from src.datamodule.medicat import MedicatDataModule

    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    MedicatDataModule(folder).setup()
    return {
        "datamodule_seconds": time.perf_counter() - start,
        "datamodule_cpu_seconds": time.process_time() - cpu,
        "datamodule_peak_megabytes": _peak(),
        "datamodule_imports_megabytes": before,
    }


MEASURES = {"reader": measure_reader, "datamodule": measure_datamodule}


def in_own_process(name: str, folder: str) -> dict[str, float]:
    """The figures of one measure, taken where making the files does not count."""
    command = [sys.executable, "-m", "benchmarks.medicat_index", "--measure", name, folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=LINES)
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="folder with real lines to repeat")
    parser.add_argument("--datamodule", action="store_true", help="measure the data module's setup too")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, folder = options.measure
        print(json.dumps(MEASURES[name](Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), options.sample, options.lines)
        figures = in_own_process("reader", folder)
        if options.datamodule:
            figures |= in_own_process("datamodule", folder)
    for name, value in figures.items():
        print(f"{name:<30}{value:>12,.1f}")
    seconds = figures["read_seconds"] + figures["split_seconds"]
    kept = seconds < MAX_SECONDS and figures["peak_megabytes"] < MAX_MEGABYTES
    print(f"reader within {MAX_SECONDS:.0f} s and {MAX_MEGABYTES:,.0f} MB: {'yes' if kept else 'NO'}")
    print(json.dumps(figures | {"within_limits": kept}))
    sys.exit(not kept)


if __name__ == "__main__":
    main()
