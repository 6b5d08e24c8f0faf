"""Serve a page to try a captioner: python -m src.app checkpoint=<run, .ckpt, saved folder or hub id>

checkpoint=        a run folder (its best), a .ckpt, `last`, a saved folder or a hub id
log_dir=           where `last` looks for the newest run; the project's logs/ when not given
host=127.0.0.1     address to listen at; an address of the network lets the network in
port=7860          0 takes the first free one from 7860
num_beams=0        beams of the search; 0: as the checkpoint was evaluated
max_length=0       tokens of a caption, start token included; 0: as the checkpoint was evaluated
max_megabytes=20   of an uploaded file
max_total_megabytes=200  of all uploaded files on disk
max_megapixels=50  of an image, height times width
device=auto        auto, cpu, cuda, mps
precision=auto     auto (bf16 where the hardware has it), bf16, 32
base=              where the base weights are now, when they were moved since training

Upload, drop or paste an image to see its caption, the other beams, and where the model attended for each word.
Uploads are deleted within two minutes. Needs the extra `app`. Ctrl-C stops it.

Exit status: 1 a mistake in the command; 130 stopped.
"""

import html
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.utils.entry import parse_command, run_command
from src.utils.errors import UserError
from src.utils.logging import visible

if TYPE_CHECKING:
    from gradio import Blocks

    from src.captioner import Captioner

DEFAULTS = {
    "checkpoint": None, "log_dir": "", "host": "127.0.0.1", "port": 7860, "num_beams": 0, "max_length": 0,
    "max_megabytes": 20, "max_total_megabytes": 200, "max_megapixels": 50, "device": "auto", "precision": "auto",
    "base": "",
}  # fmt: skip
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MEGABYTE, MEGAPIXEL = 2**20, 1_000_000
KEPT_SECONDS = 60  # an uploaded file
MAX_WAITING = 16  # images in the queue; one is captioned at a time
LONGEST_SIDE, MAX_BYTES = 960, 400_000  # of the image as it is shown
PREFIX, MARKER = "captioner-uploads-", ".captioner-uploads"
ASSETS = Path(__file__).parent / "report"


def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C and return the exit status.

    Raises:
        UserError: an unknown argument or one out of range, no Gradio, no captioner, or no such address to listen at.
    """
    settings = parse_command(arguments, DEFAULTS)
    check_settings(settings)
    from src.captioner import open_from_settings

    captioner = open_from_settings(settings)
    with upload_folder() as folder:
        launch(build_page(captioner, settings), settings, folder)
    print("stopped", file=sys.stderr)
    return 130


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check what can be checked before the model is loaded.

    Raises:
        UserError: a limit below 1, a port out of range, or Gradio is not installed.
    """
    for name in ("max_megabytes", "max_total_megabytes", "max_megapixels"):
        if settings[name] < 1:
            raise UserError(f"{name}={settings[name]}; expected 1 or more; set {name}={DEFAULTS[name]}")
    if not 0 <= settings["port"] <= 65535:
        raise UserError(f"port={settings['port']}; expected 0 to 65535; set port=7860")
    if importlib.util.find_spec("gradio") is None:
        raise UserError(
            "the page needs gradio, which is not installed; expected the extra app; "
            "poetry install --extras app, or pip install gradio"
        )


@contextmanager
def upload_folder() -> Iterator[Path]:
    """Yield a new folder for uploads, which is removed at the end, as are those of pages that were killed.

    Only folders that carry our marker file, are the user's own and in no use are removed.
    """
    from filelock import FileLock, Timeout

    root = Path(tempfile.gettempdir())
    for old in root.glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):
            own = not hasattr(os, "getuid") or old.lstat().st_uid == os.getuid()
            if own and not old.is_symlink() and (old / MARKER).is_file():
                FileLock(old / MARKER).acquire(timeout=0).lock.release()
                shutil.rmtree(old)
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix=PREFIX)))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        with FileLock(folder / MARKER):
            (folder / MARKER).touch()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build_page(captioner: "Captioner", settings: Mapping[str, Any]) -> "Blocks":
    """Return the page: an image to upload, its captions and attention maps."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}  # before the import
    import gradio as gr

    def caption(path: str | None) -> tuple[Any, Any]:
        return (None, respond(captioner, Path(path), settings)) if path else (gr.skip(), gr.skip())

    limits = "At most {max_megabytes} MB and {max_megapixels} megapixels.".format(**settings)
    script = "\n".join(
        (ASSETS / name).read_text(encoding="utf-8") for name in ("cross_attention_maps.js", "page.js")
    )
    with gr.Blocks(
        title="Captioner", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)
    ) as page:
        gr.HTML(f"<h1>Captioner</h1><p>{html.escape(describe(captioner, settings))}</p>", elem_id="about")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                upload = gr.File(label="Image", file_types=["image"], height=200, elem_id="upload")
                gr.HTML(f"<p>{limits} Images are deleted within two minutes.</p>", elem_id="limits")
            with gr.Column(scale=3, min_width=280):
                result = gr.HTML(
                    html_template='<div class="result" aria-live="polite"></div>', js_on_load=script,
                    apply_default_css=False, elem_id="result",
                )  # fmt: skip
        upload.upload(caption, upload, [upload, result], api_name="caption", concurrency_limit=1,
                      show_progress_on=[result])  # fmt: skip
    return page.queue(max_size=MAX_WAITING)


def describe(captioner: "Captioner", settings: Mapping[str, Any]) -> str:
    """Return the captioner in a line, without the machine's folders."""
    source = Path(settings["checkpoint"])
    name = source.name if source.exists() else str(source)
    kinds = " + ".join(
        stack.config.model_type for stack in (captioner.model.encoder, captioner.model.decoder)
    )
    precision = str(captioner.dtype).removeprefix("torch.")
    beams = f"{captioner.num_beams} beam{'s' * (captioner.num_beams > 1)}"
    return f"{name} · {kinds} · {beams} · {captioner.device}, {precision}"


def respond(captioner: "Captioner", path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Caption an uploaded file: {"error": a line} where it cannot be read, else

    {"name", "seconds", "image": {"uri", "width", "height"}, "hypotheses": [{"caption", "nats", "map"}]}, best first;
    nats per token; map as in attention.json, None where the model has no attention maps.
    """
    from src.datamodule.images.decode import UnreadableImage, decode_bytes
    from src.report.cross_attention_maps import encode_attention
    from src.report.gallery import thumbnail

    name, started = visible(path.name), time.perf_counter()
    try:
        pixels = decode_bytes(
            path.read_bytes(), name, settings["max_megapixels"] * MEGAPIXEL
        )  # uint8 (3,H,W)
    except UnreadableImage as error:
        return {"error": str(error)}
    found = captioner.nbest(pixels)
    maps = captioner.attention(pixels, [hypothesis.caption for hypothesis in found])
    entries = [None] * len(found) if maps is None else [encode_attention(name, words) for words in maps]
    for entry in entries:
        if entry is not None:
            entry["words"] = [visible(word) for word in entry["words"]]
    shown = thumbnail(pixels.permute(1, 2, 0).contiguous().numpy(), LONGEST_SIDE, MAX_BYTES)
    return {
        "name": name,
        "seconds": time.perf_counter() - started,
        "image": {"uri": shown.uri, "width": shown.width, "height": shown.height},
        "hypotheses": [
            {"caption": visible(hypothesis.caption), "nats": -hypothesis.score, "map": entry}
            for hypothesis, entry in zip(found, entries, strict=True)
        ],
    }


def launch(page: "Blocks", settings: Mapping[str, Any], folder: Path, block: bool = True) -> str:
    """Serve the page with Gradio's server; return its address.

    Raises:
        UserError: the address cannot be listened at.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    host, port = settings["host"], settings["port"]
    limit, total = settings["max_megabytes"] * MEGABYTE, settings["max_total_megabytes"] * MEGABYTE
    quota = Middleware(UploadQuota, folder=folder, max_bytes=limit, max_total=total)
    try:
        _, url, _ = page.launch(
            server_name=host, server_port=port or None, prevent_thread_lock=True, quiet=True, share=False,
            max_file_size=limit, app_kwargs={"middleware": [quota], "openapi_url": None}, footer_links=[],
            theme=gr.themes.Base(primary_hue="teal", neutral_hue="stone", font=["system-ui", "sans-serif"],
                                 font_mono=["ui-monospace"]),
            css_paths=[ASSETS / "cross_attention_maps.css", ASSETS / "page.css"],
            run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False,
        )  # fmt: skip
    except OSError as error:
        raise UserError(
            f"host={host!r} port={port} cannot be used ({' '.join(str(error).split())}); expected an address of this "
            "machine and a free port; set port=<another>, or port=0 for any"
        ) from error
    if host not in LOOPBACK:
        print("anyone who can reach this machine can use the page; host=127.0.0.1 keeps it to yourself")
    print(f"{url} shows the page; Ctrl-C stops it", flush=True)
    if block:
        page.block_thread()
    return url


class UploadQuota:
    """ASGI middleware that limits request bodies and the sum of uploaded files on disk."""

    def __init__(self, app: Any, folder: Path, max_bytes: int, max_total: int) -> None:
        self.app, self.folder, self.max_bytes, self.max_total = app, folder, max_bytes, max_total
        self.pending = 0  # bytes of uploads in progress

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass a request on, or respond with 411, 413 or 507."""
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        header = dict(scope["headers"]).get(b"content-length", b"")
        length = int(header) if header.isdigit() else 0
        upload = length if scope["path"].endswith("/upload") else 0
        error = None
        if not header.isdigit():
            error = PlainTextResponse("a content-length is needed", 411)
        elif length > (self.max_bytes if upload else 0) + 2**16:
            error = PlainTextResponse("the file is too large", 413)
        elif upload and self.used() + self.pending + upload > self.max_total:
            error = PlainTextResponse("too many uploads; try again in two minutes", 507)
        if error:
            return await error(scope, receive, send)
        self.pending += upload
        try:
            await self.app(scope, receive, send)
        finally:
            self.pending -= upload

    def used(self) -> int:
        """Return the bytes of the uploaded files on disk."""
        total = 0
        for file in self.folder.rglob("*"):
            with suppress(OSError):  # deleted meanwhile
                total += file.stat().st_size
        return total


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # removes the uploads on this exit too
    run_command(main, sys.argv[1:], __doc__)
