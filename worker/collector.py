"""What of a worker is read when somebody asks for its metrics: engines, chunks in hand, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mien.metrics import REGISTRY
from worker.classify import Classifying
from worker.hardware import gpus


class WorkerCollector(Collector):
    """Gauges of one worker."""

    def __init__(self, classifying: Callable[[], Classifying]) -> None:
        self._classifying = classifying

    def register(self) -> None:
        """Be asked whenever this process's metrics are."""
        REGISTRY.register(self)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Called at registration: nothing is measured for it."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called for each answer."""
        work = self._classifying()
        engines = work.pool.engines()
        yield GaugeMetricFamily("mien_chunks_held", "Chunks in this worker's hands.", value=work.chunks_held)
        yield GaugeMetricFamily("mien_engines_wanted", "Engines that are to run.", value=work.pool.size)
        yield GaugeMetricFamily(
            "mien_engines_ready", "Engines that take images.", value=sum(engine.ready for engine in engines)
        )
        yield GaugeMetricFamily(
            "mien_engine_images_in_hand", "Images in the engines' hands.", value=sum(e.images for e in engines)
        )
        yield GaugeMetricFamily(
            "mien_engine_resident_bytes",
            "Memory of the engine processes (resident, shared pages counted in each).",
            value=sum(engine.resident_bytes or 0 for engine in engines),
        )
        yield GaugeMetricFamily(
            "mien_measured_images_per_second", "Images a second while there is work.", value=work.images_per_s() or 0
        )
        if work.device == "cuda":
            used = GaugeMetricFamily("mien_gpu_memory_used_bytes", "GPU memory in use, by anyone.", labels=["gpu"])
            total = GaugeMetricFamily("mien_gpu_memory_bytes", "GPU memory altogether.", labels=["gpu"])
            for gpu in gpus():
                used.add_metric([str(gpu.number)], gpu.used_bytes)
                total.add_metric([str(gpu.number)], gpu.total_bytes)
            yield used
            yield total
