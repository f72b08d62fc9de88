"""The pages of the models and of the system."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from flask import Blueprint, Flask, Response, make_response, redirect, render_template, request, url_for
from markdown_it import MarkdownIt

from mien.agreement import wilson
from mien.errors import ConflictError, ModelError, NotFoundError
from mien.heartbeat import live_workers
from mien.int8 import cost_sentence
from mien.keys import allows
from mien.model_figures import figures_of
from mien.models import DEFAULT, Model
from mien.wire_system import Minute
from web import navigation
from web.auth import caller, require_scope
from web.review_charts import interval_chart
from web.services import services
from web.system import system_state

system_pages = Blueprint("system_pages", __name__)
model_pages = Blueprint("model_pages", __name__)

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def install(app: Flask) -> None:
    """Serve the pages."""
    app.register_blueprint(model_pages)
    app.register_blueprint(system_pages)
    navigation.add_entry(app, "model_pages.listed", "Models", place=30)
    navigation.add_entry(app, "system_pages.system", "System", place=40)


@model_pages.get("/models")
def listed() -> Response:
    """What is installed."""
    store = services().store
    trouble = None
    models: list[Model] = []
    chosen = None
    try:
        models = store.list()
        chosen = store.get(services().settings.model)
        models.sort(key=lambda model: _pair(model) != _pair(chosen))  # the default first
    except ModelError as error:
        trouble = error
    workers = live_workers(services().db)
    figures = {model.revision: figures_of(model, store.shipped) for model in models}
    return make_response(
        render_template(
            "models.html",
            models=models,
            chosen=chosen,
            trouble=trouble,
            figures=figures,
            workers={model.revision: sum(model.revision in info.models for info in workers) for model in models},
        )
    )


@model_pages.get("/models/<ref>")
def model(ref: str) -> Response:
    """A model: its figures, its card, whether it is the default."""
    store = services().store
    found = _model(ref)
    try:
        is_default = (found.name, found.revision) == _pair(store.get(services().settings.model))
    except ModelError:
        is_default = False
    paper = found.folder / "README.md"
    figures = figures_of(found, store.shipped)
    return make_response(
        render_template(
            "model.html",
            model=found,
            is_default=is_default,
            may_choose=allows(caller().scope, "admin") and services().settings.model == DEFAULT,
            figures=figures,
            recalls=[
                interval_chart([(s.label, _plain(s.recall, s.images)) for s in f.scores.per_label]) for f in figures
            ],
            card=card_of(paper.read_text(encoding="utf-8", errors="replace")) if paper.is_file() else None,
            int8=cost_sentence(found.folder) if "int8" in found.precisions["cpu"] else None,
            workers=[info for info in live_workers(services().db) if found.revision in info.models],
        )
    )


@model_pages.post("/models/<ref>/default")
def choose(ref: str) -> Response:
    """Make it the model of jobs that name none."""
    require_scope("admin")
    if services().settings.model != DEFAULT:
        raise ConflictError(
            f"The default model of this Mien is set to {services().settings.model!r} by MIEN_MODEL; unset that first.",
            code="default_model_set",
        )
    found = _model(ref)
    services().store.set_default(f"{found.name}@{found.revision}")
    return cast(Response, redirect(url_for("model_pages.model", ref=found.revision), 303))


@system_pages.get("/system")
def system() -> Response:
    """Workers, queues, throughput, disk, troubles; with ``part``, only what changes, for the script."""
    state = system_state()
    template = "_system.html" if request.args.get("part") else "system.html"
    facts = {"state": state, "chart": throughput_chart(state.throughput), "queues_away": None in state.queues.values()}
    return make_response(render_template(template, **facts))


@lru_cache(maxsize=32)
def card_of(text: str) -> str:
    """A model card as safe HTML: no HTML of its own passes, no picture, no script in a link; its YAML head is left out,
    and its headings go below those of the page."""
    tokens = _MARKDOWN.parse(_FRONT_MATTER.sub("", text.replace("\r\n", "\n")))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
    made = str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))
    # what is wide scrolls by itself, and can be reached by the keyboard
    made = made.replace("<pre>", '<pre tabindex="0" role="region" aria-label="Text">')
    made = made.replace("<table>", '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>')
    return made.replace("</table>", "</table></div>")


@dataclass(frozen=True)
class Column:
    """One minute of the chart, in percent of it."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class ThroughputChart:
    """Images per second, minute by minute; ``sentence`` says the same in words."""

    columns: tuple[Column, ...]
    top: float
    peak: float
    sentence: str


def throughput_chart(minutes: list[Minute]) -> ThroughputChart | None:
    """Columns of the minutes; None where nothing was written."""
    rates = [minute.images / 60 for minute in minutes]
    peak = max(rates, default=0.0)
    if peak == 0:
        return None
    top = _round_up(peak)
    room = 100 / len(rates)
    columns = tuple(
        Column(
            round(place * room + 0.1 * room, 2),
            round(100 * (1 - rate / top), 2),
            round(0.8 * room, 2),
            round(100 * rate / top, 2),
        )
        for place, rate in enumerate(rates)
        if rate
    )
    busy = [rate for rate in rates if rate]
    total = sum(minute.images for minute in minutes)
    sentence = f"{total:,} images in the last {len(minutes)} minutes, in {len(busy)} of them"
    sentence += f"; at most {peak:.1f} images per second."
    return ThroughputChart(columns, top, peak, sentence)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    step = 0.1
    while True:
        for factor in (1, 2, 5):
            if step * factor >= value:
                return step * factor
        step *= 10


def _plain(value: float, images: int) -> dict[str, float | int | None]:
    if images == 0:
        return {"value": None, "low": None, "high": None, "faces": 0}
    low, high = wilson(value, images)
    return {"value": value, "low": low, "high": high, "faces": images}


def _pair(model: Model) -> tuple[str, str]:
    return model.name, model.revision


def _model(ref: str) -> Model:
    try:
        return services().store.get(ref)
    except ModelError as error:
        if error.code != "unknown_model":
            raise
        raise NotFoundError(error.detail, code="unknown_model") from None
