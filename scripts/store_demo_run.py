"""Store a finished demo run in src/demo/flickr: python scripts/store_demo_run.py logs/train/runs/<run>

Paths become relative to the project; optimizer states, gradient histograms and most images are left out.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.summary.writer.record_writer import RecordWriter

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "src" / "demo" / "flickr"
PROJECT = "${oc.env:PROJECT_ROOT}"
COPIED = ("metrics.json", "splits.csv", "skipped.csv", "attention.json", "losses.png", "csv/metrics.csv")
WITH_PATHS = ("config_resolved.yaml", "run.json")
DROPPED_TAGS = re.compile(r"^weights_gradients/|^_hparams_")
STATES = ("epoch", "global_step", "pytorch-lightning_version", "state_dict")
IMAGES = 24  # those that the report shows first, with attention maps


def main(run: Path) -> None:
    """Replace src/demo/flickr by the parts of a run that the README and the notebook show."""

    def portable(text: str) -> str:
        return text.replace(str(run), f"{PROJECT}/{OUT.relative_to(ROOT)}").replace(str(ROOT), PROJECT)

    predictions = pd.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False)
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    shutil.rmtree(OUT)
    for name in ("csv", "tensorboard", "checkpoints", "Images"):
        (OUT / name).mkdir(parents=True)
    for name in COPIED:
        shutil.copyfile(run / name, OUT / name)
    for name in WITH_PATHS:
        (OUT / name).write_text(portable((run / name).read_text(encoding="utf-8")), encoding="utf-8")
    kept = {name: checkpoint[name] for name in STATES}
    kept["captioner"] = json.loads(portable(json.dumps(checkpoint["captioner"])))
    torch.save(kept, OUT / "checkpoints" / "best.ckpt")
    shown = {entry["image_id"] for entry in json.loads((run / "attention.json").read_text(encoding="utf-8"))[:IMAGES]}
    for index, path in enumerate(map(Path, predictions["path"])):
        if is_shown := predictions.loc[index, "image_id"] in shown:
            shutil.copyfile(path, OUT / "Images" / path.name)
        stored = f"Images/{path.name}" if is_shown else f"../../../{path.relative_to(ROOT).as_posix()}"
        predictions.loc[index, "path"] = stored
    predictions.to_csv(OUT / "predictions.csv", index=False, lineterminator="\n")
    with (OUT / "tensorboard" / "events.out.tfevents.0.demo").open("wb") as file:
        writer = RecordWriter(file)
        for path in sorted((run / "tensorboard").glob("**/events.out.tfevents.*")):
            for event in LegacyEventFileLoader(str(path)).Load():
                values = [value for value in event.summary.value if not DROPPED_TAGS.search(value.tag)]
                if event.HasField("summary"):
                    del event.summary.value[:]
                    event.summary.value.extend(values)
                writer.write(event.SerializeToString())
        writer.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
