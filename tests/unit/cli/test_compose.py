"""docker-compose.yml starts the same processes as `mien up`, with settings that exist. (No Docker engine is needed.)"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from cli.embedded import commands
from mien.settings import Settings
from tests.support.machine import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
OURS = ("migrate", "web", "worker", "worker-gpu", "control")
CHUNKS_IN_FLIGHT = Settings.model_fields["chunks_in_flight"].default


def test_the_services_are_those_of_the_design() -> None:
    assert set(SERVICES) == {*OURS, "postgres", "redis"}
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == ["worker-gpu"]


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("migrate", ["mien", "migrate"]),
        ("web", commands.web()),
        ("worker", commands.worker("cpu", CHUNKS_IN_FLIGHT)),
        ("worker-gpu", commands.worker("cuda", CHUNKS_IN_FLIGHT)),
        ("control", commands.control()),
    ],
)
def test_a_service_runs_the_command_that_mien_up_runs(service: str, command: list[str]) -> None:
    assert SERVICES[service]["command"] == command


def test_every_setting_in_it_exists_and_is_well_formed() -> None:
    for name in OURS:
        given = SERVICES[name]["environment"]
        assert {variable.removeprefix("MIEN_").lower() for variable in given} <= set(Settings.model_fields)
        values = {
            variable.removeprefix("MIEN_").lower(): re.sub(
                r"\$\{[^}]*\}+", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
            )
            for variable, value in given.items()
        }
        Settings(**values)


def test_all_but_migrate_wait_for_it_and_only_migrate_has_the_first_key() -> None:
    for name in ("web", "worker", "worker-gpu", "control"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert "MIEN_BOOTSTRAP_KEY" not in SERVICES[name]["environment"]
    assert SERVICES["migrate"]["environment"]["MIEN_BOOTSTRAP_KEY"].startswith("${MIEN_BOOTSTRAP_KEY:?")
    assert SERVICES["migrate"]["restart"] == "no"


def test_every_process_sees_photographs_and_data_at_the_same_paths() -> None:
    seen = {tuple(SERVICES[name]["volumes"]) for name in OURS}
    assert len(seen) == 1
    data, photos = seen.pop()
    assert data.endswith(f":{SERVICES['web']['environment']['MIEN_DATA_DIR']}")
    assert photos.endswith(f":{SERVICES['web']['environment']['MIEN_ROOTS']}:ro")


def test_stopping_leaves_time_to_hand_work_back() -> None:
    for name in ("web", "worker", "worker-gpu", "control"):
        grace = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace > float(SERVICES[name]["environment"]["MIEN_DRAIN_S"])


def test_every_long_running_service_has_a_health_check() -> None:
    assert [name for name in SERVICES if "healthcheck" not in SERVICES[name]] == ["migrate"]


def test_the_image_does_not_run_as_root_and_is_made_of_what_the_lock_names() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]
    base = next(stage for stage in stages if " AS base" in stage.splitlines()[0])
    assert re.search(r"^USER mien$", base, flags=re.MULTILINE)
    assert all("USER root" not in stage for stage in stages)
    for lock in re.findall(r"requirements/\w+\.lock", dockerfile):
        assert (ROOT / lock).is_file()
    torch = re.search(r"torch==[\d.]+", dockerfile)
    assert torch
    assert torch.group() in (ROOT / "requirements" / "install.sh").read_text()
