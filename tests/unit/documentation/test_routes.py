"""Every address that the front end serves is in docs/api.md, and no other; docs/api_reference.md is current."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from tests.support.documents import first_cells, section, text_of
from tests.support.web import document_of, make_app
from web.reference import reference


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    folder: Path = tmp_path_factory.mktemp("routes")
    return make_app(folder)


def served(app: Flask) -> set[str]:
    """``GET /jobs/{job_id}`` of all that is served."""
    found = set()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        if path.startswith("/static/"):
            path = "/static/{filename}"  # the version is a part of the address
        found |= {f"{method} {path}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def test_the_guide_lists_every_address_and_no_other(app: Flask) -> None:
    assert set(first_cells(section("docs/api.md", "## Routes"))) == served(app)


def test_the_reference_is_what_the_document_says(app: Flask) -> None:
    assert text_of("docs/api_reference.md") == reference(document_of(app)), (
        "run: python -m web.reference > docs/api_reference.md"
    )
