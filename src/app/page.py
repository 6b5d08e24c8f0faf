"""The page itself, in Gradio, with every way out of this machine switched off."""

import html
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read when Gradio is imported, and by what it is made of.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr
from fastapi import FastAPI

from src.app.answers import MEGABYTE, MEGAPIXEL, Limits, answer
from src.app.serving import Guard
from src.captioner import Captioner
from src.models.restore import open_captioner

FOLDER = Path(__file__).parent
WORD_MAPS = FOLDER.parent / "report" / "cross_attention_maps"
WAITING = 16  # pictures in line; one is captioned at a time
KEPT_SECONDS = 60  # an uploaded file


@contextmanager
def open_page(captioner: Captioner, about: str, limits: Limits, local: bool = True) -> Iterator[Guard]:
    """The page as an ASGI app; the files that were uploaded to it are gone when the block ends.

    about: which captioner it is, in a line. local: only this machine can reach it.
    """
    with tempfile.TemporaryDirectory(prefix="captioner-", ignore_cleanup_errors=True) as folder:
        uploads = os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(folder)
        page = mount(build_page(captioner, about, limits, Path(uploads)), limits)
        yield Guard(page, uploads, limits.max_bytes, local)


def load(settings: Mapping[str, Any]) -> tuple[Captioner, str]:
    """The captioner of the command's settings, and which one it is, in a line.

    Raises:
        UserError: no captioner at `checkpoint`, or a setting out of range.
    """
    found = open_captioner(settings["checkpoint"], settings["base"] or None)
    captioner = Captioner.from_restored(
        found, settings["max_length"] or None, settings["num_beams"] or None, settings["device"],
        settings["precision"],
    )  # fmt: skip
    kinds = " + ".join(part.config.model_type for part in (found.model.encoder, found.model.decoder))
    beams = f"{captioner.num_beams} beam{'s' * (captioner.num_beams > 1)}"
    precision = str(captioner.dtype).removeprefix("torch.")
    return captioner, f"{short(found.source)} · {kinds} · {beams} · {captioner.device}, {precision}"


def short(source: str) -> str:
    """A hub id as it is, a path without what a visitor need not know of the machine."""
    path = Path(source)
    if not path.is_absolute():
        return source
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


class Door:
    """What comes in through the place for a picture: files in the folder `uploads` and nothing else.

    Gradio itself, in a page that another server mounts, takes any file of this machine by its path, and fetches
    any address.
    """

    def __init__(self, uploads: Path) -> None:
        self.uploads = uploads

    def hand_on(self, payload: Any) -> tuple[Path, str] | None:
        """An uploaded file, unopened, and its name on the visitor's machine.

        Raises:
            PermissionError: the file was not uploaded.
        """
        if payload is None or not payload.path:
            return None
        return Path(self.check(payload.path)), payload.orig_name or "the picture"

    async def keep(self, path: str) -> str:
        """Where an uploaded file is to lie: where it lies.

        Raises:
            PermissionError: it was not uploaded.
        """
        return self.check(path)

    def check(self, path: str) -> str:
        """The path as it is.

        Raises:
            PermissionError: it leads out of the folder.
        """
        if not Path(path).resolve().is_relative_to(self.uploads):
            raise PermissionError("a file was asked for that was not uploaded")
        return path

    def guard(self, place: gr.Image) -> None:
        """Stand before `place`."""
        place.preprocess = self.hand_on  # type: ignore[method-assign, assignment]
        place.async_move_resource_to_block_cache = self.keep  # type: ignore[method-assign, assignment]


def build_page(captioner: Captioner, about: str, limits: Limits, uploads: Path) -> gr.Blocks:
    """A place for a picture, whose file goes to the folder `uploads`, and one for what the captioner says of it."""

    def respond(upload: tuple[Path, str] | None) -> tuple[Any, Any]:
        if upload is None:
            return gr.skip(), gr.skip()
        return None, answer(captioner, *upload, limits)  # the place is free for the next picture

    limit = f"At most {limits.max_bytes // MEGABYTE} MB and {limits.max_pixels // MEGAPIXEL} megapixels. "
    with gr.Blocks(
        title="Captioner", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)
    ) as page:
        gr.HTML(f"<h1>Captioner</h1><p>{html.escape(about)}</p>", elem_id="about")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                place = gr.Image(
                    label="Picture", sources=["upload", "clipboard"], buttons=[], height=200, elem_id="place",
                    placeholder="Drop or paste a picture, or press to choose one",
                )  # fmt: skip
                Door(uploads).guard(place)
                gr.HTML(
                    f"<p>{limit}Pictures stay with this page and are deleted within two minutes.</p>",
                    elem_id="limits",
                )
            with gr.Column(scale=3, min_width=280):
                shown = gr.HTML(
                    html_template='<div class="answer" aria-live="polite"></div>', js_on_load=script(),
                    apply_default_css=False, elem_id="shown",
                )  # fmt: skip
        place.input(
            respond,
            place,
            [place, shown],
            api_visibility="private",
            concurrency_limit=1,
            show_progress_on=[shown],
        )
    return page.queue(max_size=WAITING)


def script() -> str:
    """What draws an answer; Gradio runs it once the place for it is there."""
    parts = (WORD_MAPS.with_suffix(".js"), FOLDER / "answer.js")
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


def mount(page: gr.Blocks, limits: Limits) -> FastAPI:
    """The page as an ASGI app, with system fonts and without the doors that Gradio opens by default."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif"]
    return gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        theme=gr.themes.Base(primary_hue="teal", neutral_hue="stone", font=fonts, font_mono=["ui-monospace"]),
        css_paths=[WORD_MAPS.with_suffix(".css"), FOLDER / "page.css"],
        footer_links=[],
        run_history=False,
        max_file_size=limits.max_bytes,
        allowed_paths=[],
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
