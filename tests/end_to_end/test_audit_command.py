"""``mien audit`` as an operator types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests

from tests.end_to_end.system import Mien, grey

pytestmark = pytest.mark.long


def test_who_did_what_with_a_job(mien: Mien, photos: Path) -> None:
    grey(photos / "klara.png", 71)
    job = mien.job_of(photos)
    mien.wait_for(lambda: mien.counts(job)["pending"] == 0 and mien.counts(job)["total"], "the job is done")
    headers = {"Authorization": f"Bearer {mien.key()}"}
    assert requests.get(f"{mien.url()}/api/v1/jobs/{job}/results.csv", headers=headers, timeout=30).ok
    mien.run("delete", job, "--yes")
    mien.wait_for(lambda: len(json.loads(mien.run("audit", "--job", job, "--json"))) >= 4, "all acts are written down")
    acts = json.loads(mien.run("audit", "--job", job, "--json"))
    assert {act["action"] for act in acts} == {"submitted", "read", "exported", "deleted"}
    table = mien.run("audit", "--job", job, "--action", "exported")
    assert "results_csv" in table and job in table and "klara" not in table
    mien.run("audit", "--since", "yesterday", code=2)
