"""README.md of a model that is given away: what it is, what it was trained on, how good it is, what it cannot."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.models.restore import Restored
from src.report.run_files import read_json_object, read_metrics
from src.report.scores import LOWER_IS_BETTER, Score, score_rows

# data module -> what the pictures are, what is to be known of their licence
DATA = {
    "FlickrDataModule": (
        "photographs of Flickr with captions written by people (Flickr8k or Flickr30k)",
        "The photographs belong to their authors on Flickr; the data sets are offered for non-commercial research "
        "and education. Read the terms of the data set before you use this model for something else.",
    ),
    "MedicatDataModule": (
        "figures of medical papers with the captions of their authors (MedICaT)",
        "MedICaT is offered for non-commercial research; each figure stands under the licence of its paper. Read "
        "the terms of the data set before you use this model for something else.",
    ),
    "SyntheticFlickrDataModule": (
        "drawn scenes of coloured things with generated captions",
        "The pictures and captions were drawn by a program.",
    ),
    "SyntheticMedicalDataModule": (
        "drawn phantoms of medical figures with generated captions",
        "The pictures and captions were drawn by a program.",
    ),
}
LIMITS = """\
- It says what is likely, not what is certain: it names things that are not in a picture, and counts, colours,
  places and texts are often wrong.
- It knows what its data showed. On other kinds of pictures captions sound as sure and mean less.
- Captions repeat the data's habits, among them who is called a man, a woman or a child.
- It is no medical device and gives no diagnosis. Do not act on a caption that nobody has checked."""
USE = """\
```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

folder = "."  # this folder, or its id on the hub
model = VisionEncoderDecoderModel.from_pretrained(folder, dtype=torch.float32).eval()
processor = AutoImageProcessor.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)

pixels = processor(Image.open("picture.jpg").convert("RGB"), return_tensors="pt").pixel_values
print(tokenizer.batch_decode(model.generate(pixels), skip_special_tokens=True)[0])
```"""


def model_card(found: Restored, dtype: str) -> str:
    """The text of the card, from the checkpoint and from its run folder where there is one.

    Scores stand in it for a run's best checkpoint alone, which is the one that was scored.
    """
    config = found.trained.get("config") or {}
    scored = found.run_dir is not None and found.file is not None and found.file.name == "best.ckpt"
    metrics = _read(found.run_dir / "metrics.json", read_metrics) if scored and found.run_dir else {}
    about = _read(found.run_dir / "run.json", read_json_object) if found.run_dir else {}
    parts = [
        _front_matter(found),
        "# An image captioner",
        _what(found, dtype),
        "## Use\n\n" + USE,
        *([_data(config, metrics)] if config else []),
        *([_training(config, metrics, about)] if config else []),
        _scores(metrics),
        "## Limits\n\n" + LIMITS,
        _licence(found, config),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _read(path: Path, reader: Any) -> dict[str, Any]:
    """What a file of the run holds; nothing where it is missing or damaged: a card has fewer lines then."""
    try:
        return reader(path)
    except (OSError, ValueError):
        return {}


def _front_matter(found: Restored) -> str:
    lines = ["library_name: transformers", "pipeline_tag: image-to-text", "tags:", "- image-captioning"]
    if _on_hub(found.base):
        lines.append(f"base_model: {json.dumps(found.base.partition('@')[0])}")
    return "\n".join(["---", *lines, "---"])


def _on_hub(base: str) -> bool:
    return not Path(base).is_absolute() and " + " not in base


def _name(base: str) -> str:
    """The base without the folders of the machine that it lay on."""
    names = [one if _on_hub(one) else Path(one).name for one in base.split(" + ")]
    return " + ".join(f"`{name}`" for name in names)


def _what(found: Restored, dtype: str) -> str:
    model = found.model
    halves = [type(half).__name__ for half in (model.encoder, model.decoder)]
    count = sum(weight.numel() for weight in model.parameters())
    size = found.processor.image
    trained = f" fine-tuned from {_name(found.base)}" if found.trained else f" saved from {_name(found.base)}"
    return (
        f"A `VisionEncoderDecoderModel` ({halves[0]} and {halves[1]}, {count:,} weights in {dtype}){trained}. It "
        f"takes pictures of {size.width} x {size.height} pixels, as the image processor beside it makes them, and "
        f"writes captions of at most {found.max_length} tokens with {found.num_beams} beams."
    )


def _data(config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    data = config.get("datamodule") or {}
    kind = str(data.get("_target_", "")).rpartition(".")[2]
    what = DATA[kind][0] if kind in DATA else f"captioned pictures read by `{kind}`"
    folder = Path(str(data.get("data_dir") or "")).name
    lines = [f"Trained on {what}{f', folder `{folder}`' if folder else ''}."]
    counts = [
        f"{metrics[key]:,.0f} {part}"
        for part in ("train", "val", "test")
        if (key := f"data/{part}_images") in metrics
    ]
    if counts:
        lines.append(f"Images: {', '.join(counts)}.")
    ratios = data.get("split_ratios")
    if data.get("fold") is not None:
        lines.append(f"Split: fold {data['fold']} of {data.get('num_folds')}, seed {data.get('split_seed')}.")
    elif ratios:
        shares = " / ".join(f"{ratio:g}" for ratio in ratios)
        lines.append(
            f"Split by image or paper in the ratios {shares} with seed {data.get('split_seed')}, or as the data "
            "set's own files say; no image and no paper is in two parts."
        )
    skipped, broken = (metrics.get(f"data/{key}") for key in ("skipped_rows", "unreadable_images"))
    if skipped or broken:
        lines.append(
            f"Left out: {skipped or 0:.0f} rows of the captions file, {broken or 0:.0f} broken pictures."
        )
    return "## Data\n\n" + "\n".join(lines)


def _training(config: Mapping[str, Any], metrics: Mapping[str, float], about: Mapping[str, Any]) -> str:
    model, data, trainer = (config.get(part) or {} for part in ("model", "datamodule", "trainer"))
    optimizer = model.get("optimizer") or {}
    rows = {
        "trained": f"{model.get('train', 'last_blocks')}, last {model.get('num_layers_to_train', 1)} blocks"
        if model.get("train", "last_blocks") == "last_blocks"
        else model["train"],
        "optimizer": str(optimizer.get("_target_", "")).rpartition(".")[2],
        "peak learning rate": optimizer.get("lr"),
        "images per step": data.get("batch_size"),
        "epochs, at most": trainer.get("max_epochs"),
        "seed": config.get("seed"),
        "seconds of fitting": metrics.get("time/fit_seconds"),
        "command": f"`{about['command']}`" if about.get("command") else None,
        "commit": about.get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in (about.get("versions") or {}).items()),
    }
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _scores(metrics: Mapping[str, float]) -> str:
    rows = score_rows(metrics)
    if not rows:
        return ""
    base = any(row.base for row in rows)
    head = ["", "this model", *(["its base"] if base else [])]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        name = f"{row.label}, nats per token" if row.key in LOWER_IS_BETTER else row.label
        lines.append(f"| {' | '.join([name, _score(row.tuned), *([_score(row.base)] if base else [])])} |")
    note = "On the test images, which training never saw; in brackets 95% intervals over images."
    return "\n".join(["## Scores", "", note, "", *lines])


def _score(score: Score | None) -> str:
    if score is None:
        return "–"
    return f"{score.text} ({score.interval})" if score.interval else score.text


def _licence(found: Restored, config: Mapping[str, Any]) -> str:
    kind = str((config.get("datamodule") or {}).get("_target_", "")).rpartition(".")[2]
    notes = [f"The weights derive from {_name(found.base)}, whose licence holds for them too."]
    notes += [DATA[kind][1]] if kind in DATA else []
    notes.append("Whoever publishes this folder chooses a licence that these allow, and names it here.")
    return "## Licence\n\n" + " ".join(notes)
