"""Every setting is in docs/settings.md, and no page names one that does not exist."""

from __future__ import annotations

import re

import pytest

from cli.operate import markdown_table, variable
from mien.settings import Settings
from tests.support.documents import PAGES, first_cells, path_of, text_of

SETTINGS = {variable(name) for name in Settings.model_fields}
OTHERS = {
    "MIEN_SHARED": "where tests look for the shared data",
    "MIEN_DATA": "where recipes look for images",
    "MIEN_TEACHER": "where recipes look for a teacher",
    "MIEN_FAULT_POINTS": "where tests end a process",
}
"""Variables that set nothing in Mien."""


def test_the_table_is_what_the_settings_say() -> None:
    assert markdown_table() in text_of("docs/settings.md"), "run: mien settings --markdown"
    assert set(first_cells(text_of("docs/settings.md"))) == SETTINGS


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []


@pytest.mark.parametrize("page", [path_of(page) for page in PAGES])
def test_a_page_names_only_settings_that_exist(page: str) -> None:
    named = set(re.findall(r"\bMIEN_[A-Z0-9_]*[A-Z0-9]\b", text_of(page)))
    assert named - SETTINGS - set(OTHERS) == set()
