"""Settings of operating that cannot be used are refused by name."""

from __future__ import annotations

import pytest

from mien.errors import SettingsError
from mien.settings import load_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNNING_JOBS", "-1"),
        ("RUNNING_JOBS", "many"),
        ("AHEAD_S", "-5"),
        ("AHEAD_S", "nan"),
        ("WEBHOOK_NETWORKS", "10.0.0.0/8,everything"),
        ("WEBHOOK_NETWORKS", "10.0.0.1/8"),
        ("WEBHOOK_TIMEOUT_S", "0"),
        ("WEBHOOK_TIMEOUT_S", "3600"),
        ("WEBHOOKS_PER_OWNER", "-1"),
        ("METRICS_PORT", "70000"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"MIEN_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert f"MIEN_{name}" in caught.value.detail


def test_networks_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_WEBHOOK_NETWORKS", "10.0.0.0/8, fd00::/8")
    assert load_settings().webhook_networks == ("10.0.0.0/8", "fd00::/8")
