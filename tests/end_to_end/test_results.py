"""Results of real jobs, on both ways to run: files of every kind, across jobs; keys with scopes and limits."""

from __future__ import annotations

import gzip
import io
import secrets
from pathlib import Path

import pytest

from mien.client import Among, Client
from mien.errors import ForbiddenError, LimitError, NotFoundError
from tests.end_to_end.system import ByHand, Mien, grey, job_in, rows_of


def test_files_and_questions(mien: Mien, photos: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "b.png", "sub/c.png", "sub/deep/d.png")):
        grey(photos / name, 60 * number)
    (photos / "bad.png").write_text("no image")
    table, parquet = tmp_path / "out.csv", tmp_path / "out.parquet"
    first, second = secrets.token_hex(4), secrets.token_hex(4)  # the system is shared: others have jobs there, too
    said = mien.run(
        *("classify", photos, "--faces", "whole", "--metadata", f"study={first}"),
        *("--csv", table, "--parquet", parquet),
        code=3,
    )
    job = job_in(said)
    pandas = pytest.importorskip("pandas", reason="a second reader of the table")
    frame = pandas.read_parquet(parquet)
    assert list(frame["file"]) == [row["file"] for row in rows_of(table)]
    assert list(frame["emotion"].fillna("")) == [row["emotion"] for row in rows_of(table)]
    assert job in mien.run("jobs", "--metadata", f"study={first}")
    assert job not in mien.run("jobs", "--metadata", f"study={second}")
    with Client(mien.url(), mien.key()) as client:
        again = client.submit_folder(photos, faces="whole", metadata={"study": second}).id
        assert list(client.wait(again))[-1].counts.cached == 4
        found = client.results_across(outcome="ok", prefix="sub/")
        files = [(r.job, r.file) for r in found if r.job in (job, again)]
        assert sorted(files) == sorted((j, f) for j in (job, again) for f in ("sub/c.png", "sub/deep/d.png"))
        assert {r.job for r in client.results_across(Among(metadata={"study": second}))} == {again}
        assert client.overall_summary(Among(metadata={"study": second})).outcomes["failed"] == 1
        assert [(f.folder, f.outcomes["ok"]) for f in client.folders(again)] == [("", 2), ("sub", 2)]
        packed = io.BytesIO()
        client.download(again, "results.csv.gz", packed)
        assert [r["file"] for r in rows_of(gzip.decompress(packed.getvalue()).decode())] == list(frame["file"])
        assert client.model().workers
        client.delete(job)
        mien.wait_for(lambda: _is_gone(client, job), "the job is deleted")
        left = {r.job for r in client.results_across()}
        assert again in left and job not in left


@pytest.mark.postgres
@pytest.mark.redis
def test_keys_with_scopes_and_limits(by_hand: ByHand, photos: Path) -> None:
    mien = by_hand.mien
    grey(photos / "a.png", 10)
    reader = mien.run("keys", "create", "reader", "--scope", "read").strip()
    few = mien.run("keys", "create", "few", "--owner", secrets.token_hex(4), "--concurrent-jobs", "1").strip()
    listed = mien.run("keys", "list")
    assert "read" in listed and "1 jobs" in listed and "admin" in listed
    with Client(mien.url(), reader) as client:
        assert list(client.jobs()) == []
        with pytest.raises(ForbiddenError) as refused:
            client.submit_folder(photos)
        assert refused.value.code == "scope_needed"
    by_hand.processes["worker"].terminate()
    with Client(mien.url(), few, retries=0) as client:
        client.submit_folder(photos)
        with pytest.raises(LimitError) as limited:
            client.submit_folder(photos)
        assert limited.value.code == "too_many_jobs"


def _is_gone(client: Client, job: str) -> bool:
    try:
        client.job(job)
    except NotFoundError:
        return True
    return False
