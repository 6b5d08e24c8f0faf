"""Serve a page to try a captioner: python -m src.app [checkpoint=<run, .ckpt, saved folder or hub id>]

checkpoint=        a run folder (its best), a .ckpt, a saved folder or a hub id; the newest finished run when not given
log_dir=           where that run is looked for; the project's logs/ when not given
host=127.0.0.1     address to listen at; an address of the network lets the network in
port=7860          0 takes the first free one from 7860
num_beams=         beams of the search; and the other settings of `model.generation` in configs/model/vit_gpt2.yaml:
                   max_length=, do_sample=, ...; when not given, as the checkpoint was evaluated
device=auto        auto, cpu, cuda, mps
precision=auto     auto (bf16 where the hardware has it), bf16, 32
base=              where the base weights are now, when they were moved since training

Press a sample, or upload, drop or paste an image, to see its caption, the other beams, and where the model attended.
docs/page.md has a client in three lines.
Uploads of at most 20 MB and 50 megapixels are deleted within two minutes. Needs the extra `app`. Ctrl-C stops it.
"""

import html
import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.utils.config_check import GENERATION
from src.utils.entry import heavy_imports, parse_command, run_command
from src.utils.errors import UserError
from src.utils.files import scratch_folder
from src.utils.logging import visible

if TYPE_CHECKING:
    from gradio import Blocks

    from src.captioner import Captioner
    from src.report.run_files import RunFiles

DEFAULTS = {
    "checkpoint": "last", "log_dir": "", "host": "127.0.0.1", "port": 7860, **GENERATION,
    "device": "auto", "precision": "auto", "base": "",
}  # fmt: skip
MAX_MEGABYTES, MAX_TOTAL_MEGABYTES = 20, 200  # of an uploaded file, of all on disk
MAX_MEGAPIXELS = 50
LONGEST_SIDE = 960  # pixels of the image as it is shown
PREFIX = "captioner-uploads-"
ASSETS, DEMO = (Path(__file__).parent / name for name in ("report", "demo/flickr"))


def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C and return the exit status; UserErrors name mistakes in the command."""
    settings = parse_command(arguments, DEFAULTS)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("gradio is not installed; expected the extra app; make setup EXTRAS=app")
    with heavy_imports():
        from src.captioner import Captioner
    from src.report.run_files import RunFiles, read_run
    from src.utils.run_folder import checkpoint_file

    host, port = settings.pop("host"), settings.pop("port")
    captioner = Captioner.from_checkpoint(**settings)
    file = checkpoint_file(settings["checkpoint"], settings["log_dir"])
    is_run = file is not None and (file.parent.parent / "run.json").is_file()
    run = read_run(file.parent.parent) if file and is_run else RunFiles(file or Path(settings["checkpoint"]))
    with scratch_folder(Path(os.path.realpath(tempfile.gettempdir())), PREFIX, mode=0o700) as folder:
        page = build_page(captioner, run, folder)
        launch(page, host, port, folder)
        page.block_thread()
    print("stopped", file=sys.stderr)
    return 130


def describe(captioner: "Captioner", run: "RunFiles") -> str:
    """Return the page's head as HTML: the run's name without the machine's folders, data, first score, settings."""
    from src.report.html import count, data_name
    from src.report.scores import score_rows

    lead = next((row for row in score_rows(run.metrics) if row.tuned), None)
    score = f"{lead.label} {lead.tuned} on {count(len(run.predictions), 'test image')}" if lead else ""
    precision = str(captioner.dtype).removeprefix("torch.")
    beams, machine = count(captioner.generation["num_beams"], "beam"), f"{captioner.device}, {precision}"
    facts = data_name(run.config), score, beams, machine
    return f"<h1>{html.escape(run.folder.name)}</h1><p>{html.escape(' · '.join(filter(None, facts)))}</p>"


def sample_images(run: "RunFiles") -> str:
    """Return three of the run's test images, or of the shipped demo's, as buttons in HTML."""
    from src.report.html import thumbnail
    from src.report.run_files import random_order, read_predictions

    rows = run.predictions or read_predictions(DEMO / "predictions.csv")
    found = (pixels for index in random_order(len(rows)) if (pixels := rows[index].pixels()) is not None)
    uris = [thumbnail(pixels, LONGEST_SIDE)["uri"] for pixels in islice(found, 3)]
    button = '<button type="button" class="sample"><img src="{}" alt="Sample {}"></button>'
    return f'<div class="samples">{"".join(button.format(uri, k) for k, uri in enumerate(uris, 1))}</div>'


def build_page(captioner: "Captioner", run: "RunFiles", folder: Path) -> "Blocks":
    """Return the page: an image to press or to upload into `folder`, its captions and attention maps."""
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}  # read by the import
    import gradio as gr

    def caption(image: str | None) -> tuple[Any, Any]:
        return (None, respond(captioner, Path(image))) if image else (gr.skip(), gr.skip())

    limits = f"Uploads: at most {MAX_MEGABYTES} MB and {MAX_MEGAPIXELS} megapixels, deleted within two minutes."
    scripts = "\n".join((ASSETS / name).read_text("utf-8") for name in ("cross_attention_maps.js", "page.js"))
    empty = '<div class="result" aria-live="polite"></div>'
    with gr.Blocks(title="Captioner", analytics_enabled=False, delete_cache=(60, 60)) as page:
        gr.HTML(describe(captioner, run), elem_id="about")
        with gr.Row():
            with gr.Column(min_width=280):
                upload = gr.File(label="Image", file_types=["image"], height=200, elem_id="upload")
                gr.HTML(f"{sample_images(run)}<p>{limits}</p>", elem_id="limits")
            with gr.Column(min_width=280):
                result = gr.HTML(html_template=empty, js_on_load=scripts, apply_default_css=False, elem_id="result")
        shown = [upload, result]
        upload.upload(caption, upload, shown, api_name="caption", concurrency_limit=1, show_progress_on=[result])
    return page.queue(max_size=16)  # images; one is captioned at a time


def respond(captioner: "Captioner", path: Path) -> dict[str, Any]:
    """Caption an uploaded file: {"error": a line} where it cannot be read, else

    {"name", "seconds", "image": {"uri", "width", "height"}, "hypotheses": [{"caption", "nats", "map"}]}, best first;
    nats per token; map as in attention.json, None where the model has no attention maps.
    """
    from src.datamodule.images.decode import UnreadableImage, decode_bytes
    from src.report.html import thumbnail
    from src.report.run_files import encode_attention

    name, started = visible(path.name), time.perf_counter()
    try:
        pixels = decode_bytes(path.read_bytes(), name, pixel_limit=MAX_MEGAPIXELS * 1_000_000)  # uint8 (3,H,W)
    except UnreadableImage as error:
        return {"error": str(error)}
    found = captioner.nbest(pixels)
    attention: list[Any] = captioner.attention(pixels, [one.caption for one in found]) or [None] * len(found)
    hypotheses = [
        {"caption": visible(one.caption), "nats": -one.score, "map": words and encode_attention(name, words)}
        for one, words in zip(found, attention, strict=True)
    ]
    image = thumbnail(pixels.permute(1, 2, 0).contiguous().numpy(), LONGEST_SIDE)
    return {"name": name, "seconds": time.perf_counter() - started, "image": image, "hypotheses": hypotheses}


def launch(page: "Blocks", host: str, port: int, folder: Path) -> str:
    """Start Gradio's server in a thread; return its address. A UserError where it cannot be listened at."""
    import gradio as gr
    from starlette.middleware import Middleware

    limit = Middleware(limit_uploads, folder=folder, max_total=MAX_TOTAL_MEGABYTES * 2**20)
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace"]}  # nothing is fetched
    try:
        _, url, _ = page.launch(
            server_name=host, server_port=port or None, prevent_thread_lock=True, quiet=True, share=False,
            max_file_size=MAX_MEGABYTES * 2**20, footer_links=[],
            app_kwargs={"middleware": [limit], "openapi_url": None},
            theme=gr.themes.Base(primary_hue="blue", neutral_hue="stone", **fonts),
            css_paths=[ASSETS / "cross_attention_maps.css", ASSETS / "page.css"],
            run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False,
        )  # fmt: skip
    except (OSError, OverflowError) as error:
        expected = "expected an address of this machine and a free port; set port=0 for any"
        raise UserError(f"host={host!r} port={port} cannot be used ({error}); {expected}") from error
    if host not in ("127.0.0.1", "localhost", "::1"):
        print("anyone who can reach this machine can use the page; host=127.0.0.1 keeps it to yourself")
    print(f"{url} shows the page; Ctrl-C stops it", flush=True)
    return url


def limit_uploads(app: Any, folder: Path, max_total: int) -> Any:
    """Return an ASGI app that responds with 413 where the files in `folder` and a request would exceed `max_total`.

    Gradio limits each file and writes it into `folder` as it arrives. Other request bodies have at most 64 KB.
    """
    from starlette.responses import PlainTextResponse

    async def limited(scope: dict[str, Any], receive: Any, send: Any) -> None:
        respond = app
        if scope["type"] == "http" and scope["method"] == "POST":
            header = dict(scope["headers"]).get(b"content-length", b"")
            stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            room = max_total - stored if scope["path"].endswith("/upload") else 2**16
            if not header.isdigit() or int(header) > room:
                respond = PlainTextResponse("too large, or too many uploads; try again in two minutes", 413)
        await respond(scope, receive, send)

    return limited


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # removes the uploads on this exit too
    run_command(main, sys.argv[1:], __doc__)
