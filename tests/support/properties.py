"""Profiles of the property-based tests: few derived examples in every run, many random ones in a long one.

``pytest --hypothesis-profile=long`` (``make fuzz``) takes the second.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "quick",
    max_examples=15,
    derandomize=True,  # the same every time: a test that fails fails for everyone
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "long", max_examples=3000, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("quick")


def is_long() -> bool:
    """Whether this is the long run."""
    return settings().max_examples > 1000
