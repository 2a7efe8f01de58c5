"""The layout of the page, made with Gradio from the extra `app`; nothing else imports Gradio."""

import html
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from meljax.data.manifest import one
from meljax.features.frontend import Kind
from meljax.reports import answer as parts
from meljax.reports.answer import Answer
from meljax.util.errors import UserError

if TYPE_CHECKING:
    import fastapi
    import gradio

THRESHOLD = 0.5
"""The initial threshold: accepted answers are more likely right than wrong."""

KEPT_SECONDS = 3600
"""How long an upload and an answer are kept while the page is served."""

FONT = ("system-ui", "sans-serif")  # fonts of the machine; others would be downloaded

EMPTY = "<section><p>The answer appears here.</p></section>"

SCROLL = """() => {
  if (innerWidth < 700) document.querySelector("#verdict").scrollIntoView({behavior: "smooth"});
}"""
"""Scrolls to the answer, which is below the inputs on a narrow screen."""

Shown = tuple[Answer | None, str, str, str]
"""An answer, and its verdict, evidence and segments as HTML."""


def check_extra() -> None:
    """Raises `UserError` if the extra is not installed."""
    if find_spec("gradio") is None or find_spec("uvicorn") is None:
        raise UserError("app needs the extra: pip install '.[app]'")


def layout(
    name: str,
    epoch: int,
    kind: Kind,
    classes: Sequence[str],
    answer_file: Callable[[str], Answer],
    examples: Sequence[str],
    answer_example: Callable[[int], Answer],
) -> "gradio.Blocks":
    """Returns the page.

    Args:
      name: name of the run.
      epoch: epoch of the weights.
      kind: kind of the items that the model was trained on.
      classes: names of the classes.
      answer_file: returns the answer for the file at a path, or raises `UserError`.
      examples: the texts of the examples.
      answer_example: returns the answer for the example with this index, or raises `UserError`.
    """
    import gradio as gr

    cleaning = (KEPT_SECONDS // 60, KEPT_SECONDS)
    with gr.Blocks(
        title=f"{name} · meljax", analytics_enabled=False, delete_cache=cleaning
    ) as page:
        gr.HTML(_head(name, kind, len(classes), epoch), elem_classes="answer", padding=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                recorder = _recorder(gr) if kind == "audio" else None
                upload = gr.File(label=f"Upload {one(kind)}", height=140, elem_id="upload")
                threshold = gr.Slider(
                    minimum=0,
                    maximum=1,
                    value=THRESHOLD,
                    step=0.01,
                    label="Threshold",
                    info='If no class is at least as probable, the answer is "unknown".',
                    elem_id="threshold",
                )
                chooser = _chooser(gr, examples)
            with gr.Column(scale=3, min_width=300):
                verdict, evidence, segments = (
                    gr.HTML(text, elem_id=part, elem_classes="answer", padding=False)
                    for part, text in (("verdict", EMPTY), ("evidence", ""), ("segments", ""))
                )
        kept = gr.State(None, time_to_live=KEPT_SECONDS)

        def show(answer: Callable[[], Answer], least: float) -> Shown:
            try:
                found = answer()
            except UserError as error:
                return None, parts.problem(str(error)), "", ""
            return (
                found,
                parts.verdict(found, least),
                parts.evidence(found),
                parts.segments(found, least),
            )

        def show_file(path: str | None, least: float) -> Shown:
            return show(lambda: answer_file(path), least) if path else (None, EMPTY, "", "")

        def show_example(number: int, least: float) -> Shown:
            return show(lambda: answer_example(number), least)

        def show_again(found: Answer | None, least: float) -> tuple[object, object]:
            if found is None:
                return gr.skip(), gr.skip()
            return parts.verdict(found, least), parts.segments(found, least)

        outputs = [kept, verdict, evidence, segments]
        single = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
        started = [upload.upload(show_file, [upload, threshold], outputs, **single)]
        if recorder is not None:
            given = [recorder, threshold]
            started.append(recorder.stop_recording(show_file, given, outputs, **single))
        if chooser is not None:
            started.append(chooser.click(show_example, [chooser, threshold], outputs, **single))
        for event in started:
            event.then(None, js=SCROLL)
        quietly = {"show_progress": "hidden", "trigger_mode": "always_last"}
        threshold.change(
            show_again, [kept, threshold], [verdict, segments], api_visibility="private", **quietly
        )
    return page


def _recorder(gr) -> "gradio.Audio":
    return gr.Audio(
        sources=["microphone"],
        type="filepath",
        label="Record",
        elem_id="record",
        buttons=[],
        editable=False,  # the answer would not follow an edit
    )


def _chooser(gr, examples: Sequence[str]) -> "gradio.Dataset | None":
    """Returns the list of examples, or `None` without examples."""
    if not examples:
        return None
    return gr.Dataset(
        components=[gr.Textbox(visible=False)],
        samples=[[text] for text in examples],
        type="index",
        samples_per_page=len(examples),
        label="Examples from the validation split",
        elem_id="examples",
    )


def web_app(blocks: "gradio.Blocks") -> "fastapi.FastAPI":
    """Returns the web application of a page; it contacts no other host."""
    import gradio as gr
    from fastapi import FastAPI

    theme = gr.themes.Default(font=FONT, font_mono="monospace")
    # Gradio's gray is too pale to be easily readable.
    gray = {
        "body_text_color_subdued": "*neutral_600",
        "body_text_color_subdued_dark": "*neutral_300",
    }
    style = Path(parts.__file__).with_name("templates") / "answer.css"
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        footer_links=[],
        run_history=False,  # would keep inputs and answers in the browser
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        theme=theme.set(**gray),
        css_paths=[style],
    )


def _head(name: str, kind: Kind, classes: int, epoch: int) -> str:
    what = "Record or upload a recording" if kind == "audio" else "Upload an image"
    told = f"{what}: the model of epoch {epoch} chooses among {classes:,} classes."
    return f"<h1>{html.escape(name)}</h1><p>{told}</p>"
