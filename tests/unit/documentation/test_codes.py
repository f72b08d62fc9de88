"""Every error code that the source can give is in a table of docs/api.md, by whom it can meet; and no other."""

from __future__ import annotations

import re

import pytest

from mien.errors import MienError
from tests.support.codes import given_codes
from tests.support.documents import first_cells, named, rows, section
from web.codes import CODES, IMAGE_CODES

GUIDE = "docs/api.md"
IMAGES = "### Why an image failed"
JOBS = "### Why a job failed, or is held up"
OTHERS = "### What only programs on this side see"


def problems() -> list[list[str]]:
    """The rows of the codes that a problem document can carry: those before the first sub-heading."""
    return rows(section(GUIDE, "## Errors").partition("\n### ")[0])


def listed(*headings: str) -> set[str]:
    return {code for heading in headings for code in first_cells(section(GUIDE, heading))}


def test_every_code_in_the_source_is_documented() -> None:
    tables = {code for row in problems() for code in named(row[0])} | listed(IMAGES, JOBS, OTHERS)
    assert {code: file for code, file in given_codes().items() if code not in tables} == {}


def test_every_documented_code_is_in_the_source() -> None:
    tables = {code for row in problems() for code in named(row[0])} | listed(IMAGES, JOBS, OTHERS)
    stages = {"decode", "detect", "classify"}  # a bottleneck's code is a stage by its name
    assert tables - set(given_codes()) - stages == set()


def test_problem_documents_carry_the_codes_of_the_table() -> None:
    """``web.codes`` is what OpenAPI lists, and every answer of every test is held against that."""
    table = {code for row in problems() for code in named(row[0])}
    assert table | listed(IMAGES) == set(CODES)
    assert listed(IMAGES) - {"source_away", "too_large"} == set(IMAGE_CODES)


def test_no_code_is_listed_where_it_cannot_come() -> None:
    assert listed(OTHERS) & set(CODES) == set()


@pytest.mark.parametrize("kind", [MienError, *MienError.__subclasses__()], ids=lambda kind: kind.__name__)
def test_the_table_has_the_status_of_an_error(kind: type[MienError]) -> None:
    """Of the codes that classes bring along, where a problem document can carry them."""
    statuses = {code: re.findall(r"\d+", row[1]) for row in problems() for code in named(row[0])}
    if kind.code in statuses:
        assert str(kind.status) in statuses[kind.code]
