"""Mutation testing of the ledger: ``python -m tests.mutation`` (``make mutate``).

mutmut makes the mutants (``mutants/``, which git ignores), notes which test calls which function, and runs each mutant
in a process of its own. There are thousands, so this takes a seeded random sample of every module and tries
each mutant on the shortest tests that call its function, ``--seconds`` of them: a mutant that only a longer test would
notice counts as one that lives. The tests run on SQLite, and on PostgreSQL where its server programs are installed
(one private server for all). Code that runs when its module is imported has done so before mutmut forks; its mutants
are tried in a fresh interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import NormalDist

from tests.support.machine import ROOT
from tests.support.postgres import server_programs
from tests.support.servers import RUNNING_POSTGRES, running_postgres

MUTANTS = ROOT / "mutants"
STATS = MUTANTS / "mutmut-stats.json"
AT_IMPORT = {"mien.ledger.lease.x__next_jobs": "mien.ledger.lease.x__candidates"}
"""Functions that are called when their module is imported, and the one whose tests judge them."""
FEW_TESTS = "mien.ledger.review.x_take_back__mutmut_1"
KILLED = {1, 3, 24, 36, 37, 152, 255, -24}
"""Exit codes: a test failed, or the time was up."""


def main() -> None:
    """Draw the sample, try it, and print what was killed of each module and what lives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sample", type=int, default=8, help="mutants of each module (0: all)")
    parser.add_argument("--modules", default="", help="only these, by name: lease,commit")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10, help="tests of a mutant, as long as they took unmutated")
    parser.add_argument("--children", type=int, default=1, help="mutants at a time")
    parser.add_argument("--try-again", action="store_true", help="only mutants of the sample that were not killed yet")
    parser.add_argument("--noted", action="store_true", help="no test has changed since the last run: begin at once")
    asked = parser.parse_args()
    with _one_postgres():
        run(asked)


def run(asked: argparse.Namespace) -> None:
    """Make the mutants, try those that are drawn, report."""
    if not asked.noted:  # makes all mutants, and notes what each test calls
        mutmut("run", FEW_TESTS, "--max-children", "1")
    sample = {
        module: drawn(names, asked.sample, asked.seed)
        for module, names in all_mutants().items()
        if not asked.modules or module in asked.modules.split(",")
    }
    chosen = [name for names in sample.values() for name in names]
    if asked.try_again:
        results = all_results()
        chosen = [name for name in chosen if results[name] not in KILLED]
    try_out(chosen, asked.seconds, asked.children)
    report(sample)


@contextmanager
def _one_postgres() -> Iterator[None]:
    """A server for the tests of all mutants: to start one for each would cost more than all the rest."""
    if server_programs() is None:
        print("PostgreSQL is not installed: what only it would notice counts as living.")
        yield
        return
    with running_postgres() as folder:
        os.environ[RUNNING_POSTGRES] = folder
        yield


def all_mutants() -> dict[str, list[str]]:
    """The names of all mutants of each module of the ledger."""
    found = {path.name.removesuffix(".py.meta"): sorted(_exit_codes(path)) for path in _notes()}
    return {module: names for module, names in found.items() if names}


def drawn(names: list[str], size: int, seed: int) -> list[str]:
    """A random sample, the same for the same seed; a larger one holds the smaller."""
    shuffled = random.Random(seed).sample(names, len(names))
    return shuffled[: size or None]


def try_out(names: list[str], seconds: float, children: int) -> None:
    """Run the tests against each mutant; the exit codes are kept in mutmut's notes."""
    before = STATS.read_text()
    try:
        stats = json.loads(before)
        _shorten(stats, seconds)
        STATS.write_text(json.dumps(stats))
        at_import = [name for name in names if _function(name) in AT_IMPORT]
        forked = [name for name in names if name not in at_import]
        if forked:
            mutmut("run", "--max-children", str(children), *forked)
        for name in at_import:
            tests = stats["tests_by_mangled_function_name"][AT_IMPORT[_function(name)]]
            if not _passes("", tests):
                raise SystemExit("The tests fail without a mutant.")
            _keep(name, int(not _passes(name, tests)))
    finally:
        STATS.write_text(before)


def mutmut(*arguments: str) -> None:
    """Run mutmut in the repository's root."""
    program = shutil.which("mutmut", path=str(Path(sys.executable).parent)) or "mutmut"
    subprocess.run([program, *arguments], cwd=ROOT, check=True)


def all_results() -> dict[str, int | None]:
    """The exit code of each mutant, None for one that was not tried."""
    return {name: code for path in _notes() for name, code in _exit_codes(path).items()}


def report(sample: dict[str, list[str]]) -> None:
    """Print a row for each module, the share of all (weighted by the modules' sizes), and the mutants that live."""
    results, sizes = all_results(), {module: len(names) for module, names in all_mutants().items()}
    share, variance, lives = 0.0, 0.0, []
    total = sum(sizes[module] for module in sample)
    print("| module | mutants | tried | killed |\n| --- | ---: | ---: | ---: |")
    for module, names in sample.items():
        tried = [name for name in names if results[name] is not None]
        killed = sum(results[name] in KILLED for name in tried)
        lives += [name for name in tried if results[name] not in KILLED]
        print(f"| {module} | {sizes[module]} | {len(tried)} | {killed} |")
        if tried:
            weight, part = sizes[module] / total, killed / len(tried)
            # a proportion with Laplace's prior, so that a module without a survivor does not count as certain
            smoothed = (killed + 1) / (len(tried) + 2)
            share += weight * part
            unseen = 1 - len(tried) / sizes[module]
            variance += weight**2 * smoothed * (1 - smoothed) / len(tried) * unseen
    margin = NormalDist().inv_cdf(0.975) * variance**0.5
    print(f"\nkilled: {share:.1%} of all, 95 % interval {share - margin:.1%} to {min(share + margin, 1):.1%}")
    print("\nlive:")
    for name in lives:
        print(f"{name} ({results[name]})")


def _notes() -> list[Path]:
    return sorted((MUTANTS / "mien" / "ledger").glob("*.meta"))


def _exit_codes(notes: Path) -> dict[str, int | None]:
    codes: dict[str, int | None] = json.loads(notes.read_text())["exit_code_by_key"]
    return codes


def _keep(name: str, code: int) -> None:
    for path in _notes():
        notes = json.loads(path.read_text())
        if name in notes["exit_code_by_key"]:
            notes["exit_code_by_key"][name] = code
            path.write_text(json.dumps(notes))


def _function(mutant: str) -> str:
    return mutant.rpartition("__mutmut_")[0]


def _shorten(stats: dict[str, dict[str, list[str]]], seconds: float) -> None:
    """Leave of each function's tests the shortest, as many as run in ``seconds``, and at least one; order them."""
    took: dict[str, float] = stats["duration_by_test"]  # type: ignore[assignment]
    for function, tests in stats["tests_by_mangled_function_name"].items():
        ordered = sorted(tests, key=lambda test: took[test])
        stats["tests_by_mangled_function_name"][function] = list(_within(ordered, took, seconds))


def _within(tests: list[str], took: dict[str, float], seconds: float) -> Iterator[str]:
    spent = 0.0
    for number, test in enumerate(tests):
        spent += took[test]
        if number and spent > seconds:
            return
        yield test


def _passes(mutant: str, tests: list[str]) -> bool:
    """Whether the tests pass in a fresh interpreter, the mutant there from its first import on."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--rootdir=.", *tests]
    environment = os.environ | {"MUTANT_UNDER_TEST": mutant, "PYTHONPATH": str(MUTANTS)}
    return subprocess.run(command, cwd=MUTANTS, env=environment, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main()
