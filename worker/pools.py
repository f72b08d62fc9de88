"""The engines of a worker, made for its device as the settings say."""

from __future__ import annotations

from mien.settings import Settings
from worker.device_pool import DevicePool
from worker.devices import engine_count
from worker.gpus import gpu_count
from worker.supervisor import EnginePool


def make_pool(device: str, settings: Settings) -> EnginePool:
    """Engines that decode and classify on the CPU, or decoding processes and one device engine per GPU."""
    if device == "cpu":
        return EnginePool(
            engine_count(settings.engines),
            image_timeout_s=settings.image_timeout_s,
            max_rss_bytes=settings.engine_max_rss_bytes,
        )
    devices = devices_of(settings)
    return DevicePool(
        devices,
        engine_count(settings.engines),
        batch=settings.device_batch,
        compiled=is_compiled(devices, settings.compile),
        image_timeout_s=settings.image_timeout_s,
        max_rss_bytes=settings.engine_max_rss_bytes,
    )


def devices_of(settings: Settings) -> tuple[str, ...]:
    """The devices that a GPU worker drives: as set, else every GPU that this process may see."""
    return settings.devices or tuple(f"cuda:{number}" for number in range(max(gpu_count(), 1)))


def is_compiled(devices: tuple[str, ...], setting: str) -> bool:
    """Whether networks are compiled; ``auto``: on GPUs, not on the CPU in their place, where it hardly pays."""
    return setting == "on" or (setting == "auto" and any(device.startswith("cuda") for device in devices))
