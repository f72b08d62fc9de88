"""The sentence on what holds a job back, and that it names what can be changed."""

from __future__ import annotations

import pytest

from mien.bottleneck import find_bottleneck
from mien.stage_times import STAGES

EVEN = {"read": 0.1, "decode": 2.0, "detect": 3.0, "classify": 2.0, "write": 0.1}
NONE = dict.fromkeys(STAGES, 0.0)


@pytest.mark.parametrize(
    ("worked", "waited", "code", "advice"),
    [
        ({}, {}, "detect", "--faces whole"),
        ({"classify": 6.0}, {}, "classify", "--precision int8"),
        ({"decode": 6.0}, {}, "decode", "JPEG"),
        ({"read": 6.0}, {}, "read", "faster disk"),
        ({}, {"read": 4.0}, "read", "local disk"),
        ({}, {"classify": 5.0}, "cores", "MIEN_ENGINES"),
        ({"write": 1.0}, {}, "write", "MIEN_CHUNK_S"),
        ({}, {"write": 2.0}, "write", "database"),
    ],
)
def test_what_takes_longest_is_named(
    worked: dict[str, float], waited: dict[str, float], code: str, advice: str
) -> None:
    found = find_bottleneck(EVEN | worked, NONE | waited, images=100, precision="fp32", detect_size=640)
    assert found is not None
    assert found.code == code
    assert advice in found.detail
    assert "% of the engines' time" in found.detail
    assert found.detail.endswith(".")


def test_int8_is_not_proposed_to_those_who_have_it() -> None:
    found = find_bottleneck(EVEN | {"classify": 9.0}, NONE, images=10, precision="int8", detect_size=640)
    assert found is not None
    assert "int8" not in found.detail


def test_nothing_is_said_too_early() -> None:
    assert find_bottleneck(NONE, NONE, images=0, precision="fp32", detect_size=640) is None
    assert find_bottleneck(NONE | {"decode": 0.5}, NONE, images=3, precision="fp32", detect_size=640) is None
