"""The gallery of a job, and each of its images: photographs with boxes, filtered, in the order that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Flask, Response, make_response, render_template, request

from mien.aggregates import folders
from mien.errors import ForbiddenError, InvalidRequestError, MienError, NotFoundError, UnavailableError
from mien.gallery import image_of, neighbours, page_by_confidence
from mien.jobs import Job, get_job
from mien.paging import Page
from mien.results import ResultFilter, results_page
from web.auth import caller
from web.boxes import Box, boxes_of
from web.pictures import check_may_be_shown
from web.services import services

PER_PAGE = 48
IN_STRIP = 8
TAGGED_FACES = 3
"""On the wall so many faces of an image have their name in the picture, and the others their glyph."""
MOST_FOLDERS = 200
SORTS = {"": "In the order read", "doubtful": "Least certain first", "certain": "Most certain first"}
OUTCOMES = {"": "All", "ok": "With faces", "no_face": "Without a face", "failed": "Failed"}
FACES = {"": "Any number", "1": "One", "2": "Two", "3-": "Three or more", "10-": "Ten or more"}

gallery = Blueprint("gallery", __name__)


def install(app: Flask) -> None:
    """Serve the galleries."""
    app.register_blueprint(gallery)
    app.add_template_filter(_file_size, "file_size")


@dataclass(frozen=True)
class Asked:
    """What a gallery is asked to show: the words of its address, checked."""

    emotion: str
    outcome: str
    low: int | None
    high: int | None
    folder: str
    faces: str
    sort: str

    @property
    def wanted(self) -> ResultFilter:
        """As the ledger takes it."""
        least, _, _more = self.faces.partition("-")
        return ResultFilter(
            emotion=self.emotion or None,
            outcome=self.outcome or None,
            min_confidence=None if self.low is None else self.low / 100,
            max_confidence=None if self.high is None else self.high / 100,
            prefix=f"{self.folder}/" if self.folder else None,
            min_faces=int(least) if least else None,
            max_faces=int(least) if least and not self.faces.endswith("-") else None,
        )

    @property
    def words(self) -> dict[str, str]:
        """As they stand in addresses; only what is asked."""
        said = {
            "emotion": self.emotion, "outcome": self.outcome, "from": "" if self.low is None else str(self.low),
            "to": "" if self.high is None else str(self.high), "folder": self.folder, "faces": self.faces,
            "sort": self.sort,
        }  # fmt: skip
        return {name: value for name, value in said.items() if value}

    @property
    def is_filtered(self) -> bool:
        """Whether anything is left out."""
        return bool(set(self.words) - {"sort"})

    def address(self, **changes: str) -> str:
        """The query of an address with these changes; empty ones are left out."""
        return urlencode({name: value for name, value in (self.words | changes).items() if value})


@gallery.get("/jobs/<job_id>/gallery")
def wall(job_id: str) -> Response:
    """The wall: its first page, or the one behind ``after``."""
    job, asked = _job(job_id), read_query()
    page = _page(job, asked)
    known, more_folders = folders(services().db, job, limit=MOST_FOLDERS)
    body = render_template(
        "gallery.html",
        job=job,
        asked=asked,
        page=page,
        tiles=tiles_of(page.items, asked),
        shown=why_not_shown(job),
        folders=[item["folder"] for item in known if item["folder"]],
        more_folders=more_folders,
        sorts=SORTS,
        outcomes=OUTCOMES,
        faces=FACES,
        is_first=not request.args.get("after"),
    )
    return make_response(body)


@gallery.get("/jobs/<job_id>/gallery/tiles")
def tiles(job_id: str) -> Response:
    """A page of the wall as the script puts it in: list items, and in headers where to go on."""
    job, asked = _job(job_id), read_query()
    page = _page(job, asked)
    answer = make_response(
        render_template(
            "_tiles.html", job=job, asked=asked, tiles=tiles_of(page.items, asked), shown=why_not_shown(job)
        )
    )
    if page.next:
        answer.headers["Mien-Next"] = page.next
    answer.headers["Mien-More"] = "yes" if page.has_more else "no"
    return answer


@gallery.get("/jobs/<job_id>/gallery/strip")
def strip(job_id: str) -> Response:
    """The first few photographs with faces, as tiles: for the job's page."""
    job = _job(job_id)
    return make_response(render_template("_tiles.html", **strip_facts(job)))


def strip_facts(job: Job) -> dict[str, Any]:
    """What ``_tiles.html`` needs to show the first photographs of a job."""
    asked = Asked(emotion="", outcome="", low=None, high=None, folder="", faces="", sort="")
    found = (
        results_page(services().db, job, limit=IN_STRIP, wanted=ResultFilter(outcome="ok"))
        if job.counts["ok"]
        else None
    )
    items = found.items if found else []
    return {"job": job, "asked": asked, "tiles": tiles_of(items, asked, named=0), "shown": why_not_shown(job)}


@gallery.get("/jobs/<job_id>/images/<int:image_id>")
def image(job_id: str, image_id: int) -> Response:
    """One image: upright, with its boxes, every probability, and what is known of the file."""
    return _image(job_id, image_id, "image.html")


@gallery.get("/jobs/<job_id>/images/<int:image_id>/part")
def image_part(job_id: str, image_id: int) -> Response:
    """The same without the page around it, for the gallery's viewer."""
    return _image(job_id, image_id, "_image.html")


def _image(job_id: str, image_id: int, template: str) -> Response:
    job, asked = _job(job_id), read_query()
    item = image_of(services().db, job, image_id)
    body = render_template(
        template,
        job=job,
        asked=asked,
        image=item,
        boxes=boxes_of(item["faces"], item["width"], item["height"]),
        beside=neighbours(services().db, job, image_id),
        shown=why_not_shown(job),
        picture=_shows_picture(item),
    )
    return make_response(body)


@dataclass(frozen=True)
class Tile:
    """An image on the wall."""

    item: dict[str, Any]
    boxes: list[Box]
    lead: dict[str, Any] | None
    """The face that the caption names: the one it stands here for, else the largest."""
    words: str
    """What the picture shows, for those who do not see it."""

    @property
    def is_portrait(self) -> bool:
        """Whether it is higher than wide."""
        return bool(self.item["width"] and self.item["height"] > self.item["width"])

    @property
    def picture(self) -> bool:
        """Whether there is a picture to show."""
        return _shows_picture(self.item)


def tiles_of(items: list[dict[str, Any]], asked: Asked, *, named: int = TAGGED_FACES) -> list[Tile]:
    """The images as tiles; so many faces of each have their name in the picture."""
    return [_tile(item, asked, named) for item in items]


def _tile(item: dict[str, Any], asked: Asked, named: int) -> Tile:
    faces = item["faces"]
    lead = faces[0] if faces else None
    if asked.sort and faces:
        wanted = asked.wanted
        kept = [face for face in faces if wanted.emotion in (None, face["emotion"])]
        choose = max if asked.sort == "certain" else min
        lead = choose(kept or faces, key=lambda face: face["confidence"])
    elif asked.emotion:
        lead = next((face for face in faces if face["emotion"] == asked.emotion), lead)
    boxes = boxes_of(faces, item["width"], item["height"], named=named)
    said = ", ".join(f"{face['emotion']} {100 * face['confidence']:.0f}%" for face in faces[:TAGGED_FACES])
    if len(faces) > TAGGED_FACES:
        said += f" and {len(faces) - TAGGED_FACES} more faces"
    if not faces:
        said = {"no_face": "no face found", "failed": "could not be read"}.get(item["outcome"], item["outcome"])
    return Tile(item, boxes, lead, said)


def _shows_picture(item: dict[str, Any]) -> bool:
    return item["outcome"] in ("ok", "no_face") and bool(item["width"])


def why_not_shown(job: Job) -> MienError | None:
    """Why the pictures of this job are not shown just now; None where they are."""
    try:
        check_may_be_shown(job)
    except (ForbiddenError, NotFoundError, UnavailableError) as error:
        return error
    return None


def _page(job: Job, asked: Asked) -> Page[dict[str, Any]]:
    after = request.args.get("after") or None
    if not asked.sort:
        return results_page(services().db, job, after=after, limit=PER_PAGE, wanted=asked.wanted)
    if asked.outcome not in ("", "ok"):
        return Page(items=[], next=None, has_more=False)  # only faces have a confidence
    return page_by_confidence(
        services().db,
        job,
        most_certain_first=asked.sort == "certain",
        after=after,
        limit=PER_PAGE,
        wanted=asked.wanted,
    )


def read_query() -> Asked:
    """What this request asks for.

    Raises:
        InvalidRequestError: a word that is not known here.
    """
    said = {name: request.args.get(name, "").strip() for name in ("emotion", "outcome", "folder", "faces", "sort")}
    for name, known in (("outcome", OUTCOMES), ("faces", FACES), ("sort", SORTS)):
        if said[name] not in known:
            raise InvalidRequestError(f"`{name}` cannot be {said[name]!r} here.", field=name)
    return Asked(
        emotion=said["emotion"][:100],
        outcome=said["outcome"],
        low=_percent("from"),
        high=_percent("to"),
        folder=said["folder"].strip("/")[:2000],
        faces=said["faces"],
        sort=said["sort"],
    )


def _percent(name: str) -> int | None:
    text = request.args.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) > 100:
        raise InvalidRequestError(f"`{name}` is a confidence in percent, 0 to 100; {text!r} is none.", field=name)
    return int(text)


def _job(job_id: str) -> Job:
    return get_job(services().db, caller().reach, job_id)


def _file_size(size: int | None) -> str:
    """As people say it: 340 kB, 2.1 MB, 1.3 GB (powers of ten, as disks are sold)."""
    if size is None:
        return ""
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= of:
            return f"{size / of:.1f} {unit}" if size < 100 * of else f"{size / of:,.0f} {unit}"
    return f"{size} bytes"
