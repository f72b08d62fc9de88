"""`mien settings` shows every setting, and no secret."""

from __future__ import annotations

import json

import pytest

from cli.main import run
from cli.operate import SECRETS, variable
from mien.settings import Settings


def test_the_command_shows_every_setting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_PORT", "4711")
    assert run(["settings"]) == 0
    shown = capsys.readouterr().out
    for name, field in Settings.model_fields.items():
        assert f"{variable(name)} = " in shown
        assert field.description in shown
    assert "MIEN_PORT = 4711" in shown
    assert run(["settings", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {variable(name) for name in Settings.model_fields}


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_no_secret_is_shown(
    how: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "5f3a9c1e7b2d8064f3a9c1e7b2d80" * 4
    for name in SECRETS:
        monkeypatch.setenv(variable(name), secret)
    monkeypatch.setenv("MIEN_DATABASE_URL", f"postgresql://mien:{secret}@db/mien")
    monkeypatch.setenv("MIEN_BROKER_URL", f"redis://:{secret}@redis/0")
    assert run(["settings", *how]) == 0
    shown = capsys.readouterr().out
    assert secret not in shown
    assert "postgresql://mien:(hidden)@db/mien" in shown
