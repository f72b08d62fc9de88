"""What a worker says of its processor and GPUs."""

from __future__ import annotations

from worker.hardware import device_name, parse_gpus

SAID = """\
0, GPU-1dfe, NVIDIA H100 80GB HBM3, 1234, 81559
1, GPU-77aa, NVIDIA H100 80GB HBM3, [N/A], 81559
2, GPU-9c01, NVIDIA H100 80GB HBM3, 0, 81559
something else
"""


def test_gpus_as_the_driver_tells_them() -> None:
    found = parse_gpus(SAID, ["0", "1", "2"])
    assert [gpu.number for gpu in found] == [0, 2]  # one does not tell
    assert (found[0].used_bytes, found[0].total_bytes) == (1234 << 20, 81559 << 20)
    assert found[0].name == "NVIDIA H100 80GB HBM3"
    assert [gpu.number for gpu in parse_gpus(SAID, ["GPU-9c01"])] == [2]
    assert parse_gpus(SAID, []) == []


def test_a_processor_has_a_name() -> None:
    assert device_name("cpu")
