"""What classifies: the model and an engine's first crop, each tried in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.doctor.finding import Finding, output_of

if TYPE_CHECKING:
    from mien.settings import Settings

TRIAL_S = 120
LITTLE_GAIN = 1.2
_SAID = "mien: "
"""What a trial's own sentences begin with; anything else on standard error is somebody else's."""

TRIAL = """
import sys
from mien.errors import MienError, ModelError
from mien.models import ModelStore, load_model
from mien.resources import resource
from mien.settings import load_settings
from worker.classifier import open_classifier
from worker.devices import choose_device
from worker.face_search import FaceDetector
import numpy as np
settings = load_settings()
try:
    try:
        model = ModelStore(settings.models).get(settings.model)
    except ModelError as error:
        if error.code != "unknown_model" or settings.model != "default":
            raise
        model = load_model(resource("models/default"))  # not installed yet; `mien up` does it
    device = choose_device(settings.device)
    if device == "cuda":
        import torch
        if not torch.cuda.is_available():
            raise ModelError("torch finds no CUDA device", code="no_cuda")
    crop = np.zeros((model.input.height, model.input.width, 3), np.uint8)
    open_classifier(model, device, settings.precision).classify([crop])
    FaceDetector()
except MienError as error:
    sys.exit(f"mien: {error.code} {error.detail}")
except Exception as error:
    sys.exit(f"mien: - {type(error).__name__}: {error}")
print(device, model.name, model.revision, len(model.labels))
"""
"""What an engine does on its first image. A crash there is a finding, not our end."""

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

MENDS = {
    "unknown_model": "`mien models` lists what is installed; MIEN_MODEL=default takes the model that Mien comes with",
    "model_changed": "remove that folder, then run `mien migrate` (for the shipped model) or `mien models add` again",
    "no_cuda": "install a build of torch for CUDA and the driver; MIEN_DEVICE=auto takes the CPU meanwhile",
}
OTHER_MEND = "`mien models` lists the models; install Mien again if it is damaged"


def trial(settings: Settings) -> Iterator[Finding]:
    """Whether the model in force classifies a crop on the device in force."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRIAL],
            capture_output=True,
            text=True,
            timeout=TRIAL_S,
            env=_environment(settings),
            check=False,
        )
    except OSError as error:
        yield Finding("bad", "engine", f"{sys.executable} cannot be run ({error.strerror})", OTHER_MEND)
        return
    except subprocess.TimeoutExpired:
        yield Finding("bad", "engine", f"did not classify one crop within {TRIAL_S} s", "is the machine overloaded?")
        return
    if done.returncode == 0:
        device, name, revision, labels = done.stdout.split()[-4:]
        model = f"model {name}, revision {revision[:12]} ({labels} labels)"
        yield Finding("ok", "engine", f"classifies on {device} with {model}")
        return
    said = [line.removeprefix(_SAID) for line in done.stderr.splitlines() if line.startswith(_SAID)]
    code, _, sentence = (said or [f"- ended with code {done.returncode}"])[-1].partition(" ")
    yield Finding("bad", "engine", sentence[:400], MENDS.get(code, OTHER_MEND))


def int8(settings: Settings) -> Iterator[Finding]:
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
    measured = output_of([sys.executable, "-c", INT8_TRIAL], {**_environment(settings), "OMP_NUM_THREADS": "1"})
    if measured is None or "|" not in measured:
        yield Finding("ok", "int8", f"the processor has {instructions} for it; the model in force has no int8 export")
        return
    gain, _, cost = measured.rpartition("\n")[2].partition("|")
    found = f"--precision int8 classifies {float(gain):.1f} times as fast here ({instructions}) and {cost}"
    yield Finding("ok", "int8", found)


def _environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, "PYTHONSAFEPATH": "1", "MIEN_DATA_DIR": str(settings.data_dir)}
