"""Cursors belong to one list and refuse everything else."""

from __future__ import annotations

import base64

import pytest

from mien.errors import InvalidRequestError
from mien.paging import decode_cursor, encode_cursor


def test_a_cursor_gives_its_position_back() -> None:
    assert decode_cursor(encode_cursor("job", 12, 3), "job", 2) == (12, 3)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "!!!", "é", base64.urlsafe_b64encode(b'["job",-1,2]').decode(), encode_cursor("job", 1),
     base64.urlsafe_b64encode(b'["job",1,"2"]').decode(), base64.urlsafe_b64encode(b"[]").decode(),
     base64.urlsafe_b64encode(b'{"a":1}').decode(), base64.urlsafe_b64encode(b"7").decode()],
)  # fmt: skip
def test_garbage_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode_cursor(cursor, "job", 2)
    assert (caught.value.code, caught.value.field) == ("bad_cursor", "after")


def test_a_cursor_of_another_job_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode_cursor(encode_cursor("other", 1, 2), "job", 2)
    assert caught.value.code == "cursor_of_another_job"
