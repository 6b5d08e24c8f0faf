"""Write README.md of an exported model: what it is, its data, training, scores, limits and license."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.models.restore import Restored
from src.report.run_files import RunFiles, read_json_object, read_metrics
from src.report.scores import score_rows
from src.utils.run_folder import flat

FOLDER = Path(__file__).parent
SCRIPT = FOLDER.with_name("models") / "onnx_caption.py"
READ_IMAGE = re.compile(r"^def read_image.*?(?=\n\n\n)", re.DOTALL | re.MULTILINE)  # the pixels of training


def model_card(found: Restored, dtype: str) -> str:
    """Return the card's text, from the checkpoint and its run folder where there is one.

    Scores are those of a run's best checkpoint alone, which is the one that was scored. Commands, folders and user
    names of the machine are omitted.
    """
    config = dict(flat(found.trained.get("config", {})))  # dotted keys
    run = RunFiles(found.run_dir or Path("nowhere"))  # a damaged file makes the card shorter
    is_scored = found.file is not None and found.file.name == "best.ckpt"
    metrics = (run.read("metrics.json", read_metrics) if is_scored else None) or {}
    about = run.read("run.json", read_json_object) or {}
    is_hub_id = not Path(found.base).is_absolute() and " + " not in found.base
    sha256 = str(found.trained.get("base_sha256", ""))[:12]
    local = "a local model" + (f" (sha256 of its weights: {sha256}...)" if sha256 else "")
    loader = FileSystemLoader(FOLDER)
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    return environment.get_template("model_card.md.jinja").render(
        found=found,
        dtype=dtype,
        config=config,
        about=about,
        metrics=metrics,
        scores=score_rows(metrics),
        is_hub_id=is_hub_id,
        base_name=f"`{found.base}`" if is_hub_id else local,
        read_image=READ_IMAGE.findall(SCRIPT.read_text("utf-8"))[0],
    )
