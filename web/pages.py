"""The pages: submit a folder, watch its job, take the results. They work without script, which only saves reloading."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from flask import Blueprint, Flask, Response, g, make_response, redirect, render_template, request, session, url_for
from pydantic import ValidationError

from mien import __version__
from mien.erasure import record_erasures
from mien.errors import MienError, UnauthorizedError
from mien.heartbeat import live_workers
from mien.jobs import Job, get_job, request_cancel, request_retry
from mien.queue import EXPAND, PURGE
from mien.receipts import request_delete
from mien.submission import JobRequest, create_job
from web import emotions, navigation, sessions
from web.auth import caller, caller_of
from web.codes import IMAGE_CODES
from web.gallery import strip_facts
from web.job_facts import job_facts
from web.long_poll import etag_of
from web.services import services
from web.start import begin, start_facts

RELOAD_S = 5

pages = Blueprint("pages", __name__)


def install(app: Flask) -> None:
    """Serve the pages."""
    app.register_blueprint(pages)
    app.register_blueprint(begin)
    app.add_template_filter(_count, "count")
    app.add_template_filter(_percent, "percent")
    app.add_template_filter(_duration, "duration")
    app.add_template_filter(_moment, "moment")
    app.add_template_filter(_last_part, "last_part")
    app.add_template_filter(_job_title, "job_title")
    app.add_template_filter(_by_value, "by_value")
    app.add_template_filter(lambda code: IMAGE_CODES.get(code, ""), "error_words")
    app.add_template_filter(emotions.colour_class, "colour_class")
    app.add_template_filter(emotions.glyph, "glyph")
    navigation.add_entry(app, "pages.start", "Jobs", place=10)
    app.context_processor(
        lambda: {
            "navigation": navigation.entries,
            "version": __version__,
            "caller": g.get("caller"),
            "reload_s": RELOAD_S,
            "is_loopback": services().settings.is_loopback,
        }
    )


@pages.get("/")
def start() -> Response:
    """The form, and the jobs."""
    return _start_page()


@pages.post("/")
def submit() -> Response:
    """Submit the form's folder and go to its job; what is wrong is said beside the field."""
    parts, who = services(), caller()
    try:
        asked = JobRequest.model_validate(
            {
                "source": {
                    "type": "folder",
                    "path": request.form.get("path", "").strip(),
                    "recursive": "recursive" in request.form,
                },
                "model": request.form.get("model") or None,
                "options": {"faces": request.form.get("faces", "detect")},
            }
        )
        job, _ = create_job(
            parts.db,
            parts.settings,
            parts.store,
            who.owner,
            asked,
            idempotency_key=_once(asked),
            any_folder=who.any_folder,
        )
    except ValidationError:
        return _start_page(MienError("Name a folder on the server, from / on.", field="source.path"), 400)
    except MienError as error:
        if error.status >= 500:
            raise
        return _start_page(error, error.status)
    parts.doorbell.ring(EXPAND)
    return cast(Response, redirect(url_for("pages.job", job_id=job.public_id), 303))


@pages.get("/jobs/<job_id>")
def job(job_id: str) -> Response:
    """A job: how far it is, what it found."""
    found = _job(job_id)
    return make_response(render_template("job.html", **_job_facts(found)))


@pages.get("/jobs/<job_id>/live")
def live(job_id: str) -> Response:
    """The part of the job's page that changes, for the script that polls it with If-None-Match."""
    found = _job(job_id)
    has_workers = _can_go_on(found)
    tag = f"{etag_of(found)}.{has_workers:d}"  # workers come and go without a change of the job's row
    if request.if_none_match.contains_weak(tag):
        answer = make_response("", 304)
    else:
        answer = make_response(render_template("live.html", name=_job_title(found), **job_facts(services().db, found)))
    answer.set_etag(tag, weak=True)
    return answer


@pages.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """End the job early."""
    request_cancel(services().db, caller().reach, job_id)
    services().doorbell.ring(PURGE)
    return _back_to(job_id)


@pages.post("/jobs/<job_id>/retry")
def retry(job_id: str) -> Response:
    """Try its failed images again."""
    request_retry(services().db, caller().reach, job_id)
    services().doorbell.ring(EXPAND)
    return _back_to(job_id)


@pages.get("/jobs/<job_id>/delete")
def confirm_delete(job_id: str) -> Response:
    """Ask before deleting."""
    return make_response(render_template("delete.html", job=_job(job_id)))


@pages.post("/jobs/<job_id>/delete")
def delete(job_id: str) -> Response:
    """Delete the job and everything of it."""
    request_delete(services().db, caller().reach, job_id)
    record_erasures(services().db, services().settings)
    services().doorbell.ring(PURGE)
    return cast(Response, redirect(url_for("pages.start"), 303))


@pages.get("/sign-in")
def sign_in() -> Response:
    """Ask for a key."""
    return make_response(render_template("sign_in.html", next=_inner(request.args.get("next")), error=None))


@pages.post("/sign-in")
def sign_in_submit() -> Response:
    """Keep the key in the session's cookie, if it opens."""
    secret = request.form.get("key", "").strip()
    target = _inner(request.form.get("next"))
    who = caller_of(secret, services().settings, services().db)
    if who is None:
        error = UnauthorizedError("This key does not open here. Check that all of it was copied.", code="bad_key")
        return make_response(render_template("sign_in.html", next=target, error=error), 401)
    sessions.begin(services().settings, who.key_id)
    g.signed_in = who
    return cast(Response, redirect(target, 303))


@pages.post("/sign-out")
def sign_out() -> Response:
    """Forget the key."""
    session.clear()
    return cast(Response, redirect(url_for("pages.sign_in"), 303))


def _start_page(error: MienError | None = None, status: int = 200) -> Response:
    body = render_template(
        "start.html", error=error, form=request.form, picked=request.args.get("path"), **start_facts()
    )
    return make_response(body, status)


def _once(asked: JobRequest) -> str | None:
    """The same form sent twice makes one job; the form changed after going back makes another."""
    once = request.form.get("once")
    return hashlib.sha256(f"{once}\n{asked.model_dump_json()}".encode()).hexdigest() if once else None


def _job(job_id: str) -> Job:
    return get_job(services().db, caller().reach, job_id)


def _can_go_on(job: Job) -> bool:
    """Whether the job has ended, or a worker is there for it."""
    return job.is_final or bool(live_workers(services().db))


def _job_facts(job: Job) -> dict[str, object]:
    strip = strip_facts(job)
    return {
        **strip,
        **job_facts(services().db, job),
        "name": _job_title(job),
        "strip": bool(strip["tiles"]),
    }


def _back_to(job_id: str) -> Response:
    return cast(Response, redirect(url_for("pages.job", job_id=job_id), 303))


def _inner(target: str | None) -> str:
    """``target`` where it is a path of ours, else the start page: no link leads elsewhere through signing in."""
    if target and target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable():
        return target
    return url_for("pages.start")


def _last_part(path: str | None) -> str:
    """The folder's own name, for headings."""
    return Path(path or "").name or path or ""


def _job_title(job: Job) -> str:
    """What a job is called in headings: its folder's name, or the name that came with its uploads."""
    name = job.metadata.get("name")
    return name if job.source_type == "upload" and isinstance(name, str) and name else _last_part(job.source_text)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def _duration(seconds: float | None) -> str:
    """As people say it: 8 s, 3 min 20 s, 2 h 5 min."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _by_value(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """The largest first."""
    return sorted(values.items(), key=lambda item: -item[1])


def _moment(time: dt.datetime | None) -> str:
    return "" if time is None else time.strftime("%Y-%m-%d %H:%M UTC")
