"""int8 on this processor: whether it can be offered, what it gains, and what a model's record says that it costs.

Without instructions that multiply 8-bit integers into 32-bit sums (VNNI or AMX on x86-64, the dot product on arm64),
ONNX Runtime adds pairs of products in 16 bits, which saturate: such a processor gives other answers than one with them.
It would gain little besides, so workers there take no job in int8 (figures: docs/decisions.md).
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

RECORD = "record.json"
"""File of a model folder with what was measured of it. It decides no answer, so it is not part of the revision."""
TYPICAL_GAIN = 2.6
"""How many times as fast as in fp32 a network is in int8 with VNNI, where it was not measured (ONNX Runtime, static
QDQ): 2.0 measured for ViT-Tiny/16, 3.1 for ViT-S/16 (both at 112), 2.5 for ViT-S/16 and 3.5 for ViT-B/16 (at 224)."""
_FLAGS = {
    "AMX": ("amx_int8",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "the dot product": ("asimddp",),
}
MISSING = (
    "no worker's processor has the instructions for it (VNNI on x86-64, the dot product on arm64); without them int8 "
    "is hardly faster and its answers differ from those of other machines, so use fp32"
)


@lru_cache(maxsize=1)
def processor_flags() -> frozenset[str]:
    """What Linux says that the processor can do; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def int8_instructions() -> str | None:
    """The instructions that this processor has for int8, by the name people know; None where it has none."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "the dot product"  # every Apple processor for the Mac has it
    flags = processor_flags()
    return next((name for name, wanted in _FLAGS.items() if flags.intersection(wanted)), None)


@dataclass(frozen=True)
class Int8Cost:
    """What int8 costs a model on images that did not set its scales."""

    images: int
    accuracy_fp32: float
    accuracy_int8: float
    judged: str = ""
    """On what, for people."""

    def __str__(self) -> str:
        lost = 100 * (self.accuracy_fp32 - self.accuracy_int8)
        change = "no accuracy" if abs(lost) < 0.05 else f"{abs(lost):.1f} points of accuracy"
        word = "gains" if lost <= -0.05 else "costs"
        where = f" of {self.judged}" if self.judged else ""
        return (
            f"{word} {change} ({100 * self.accuracy_fp32:.1f}% in fp32, {100 * self.accuracy_int8:.1f}% in int8, "
            f"{self.images:,} images{where})"
        )


def write_record(folder: Path, costs: list[Int8Cost]) -> None:
    """Put a model's costs of int8 into its folder."""
    content = {"int8": [vars(cost) for cost in costs]}
    (folder / RECORD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_costs(folder: Path) -> list[Int8Cost]:
    """What the model's record says; empty where there is none or it cannot be read."""
    try:
        entries = json.loads((folder / RECORD).read_bytes())["int8"]
        return [
            Int8Cost(
                int(entry["images"]), float(entry["accuracy_fp32"]), float(entry["accuracy_int8"]), str(entry["judged"])
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def cost_sentence(folder: Path) -> str:
    """What int8 costs with this model, as the end of a sentence."""
    costs = read_costs(folder)
    return "; ".join(map(str, costs)) or "what it costs in accuracy was not measured for this model"


def saved_share(classify_share: float, gain: float = TYPICAL_GAIN) -> float:
    """Share of a job's time that int8 saves when classifying takes ``classify_share`` of it (Amdahl)."""
    return classify_share * (1 - 1 / gain)
