"""The pool of a GPU worker: decoding processes on the CPU that feed one device engine per GPU.

To the rest of the worker it is an :class:`~worker.supervisor.EnginePool` whose engines are the decoding processes:
every image is in the hands of one of them until its result comes. Decoding process N works with device N modulo their
number.

A device engine says which images are on the device before it begins. If it ends, those images are suspects and go alone
through the next one; the others that it had wait again. The order matters: only after the end was noted here do the
decoding processes give back what they had there (``device_gone``, ``returned``).
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mien import metrics
from mien.errors import ModelError
from mien.pipeline import DEFAULT_ENGINE_MAX_RSS_BYTES, DEFAULT_IMAGE_TIMEOUT_S
from worker.engine_process import EngineProcess
from worker.gpus import visible_gpus
from worker.memory import oom_kills
from worker.messages import ImageResult, pack, pack_spec
from worker.queueing import Item, Queue
from worker.slots import EngineStatus, Slot
from worker.supervisor import HARD_LIMIT, STARTS_BEFORE_GIVING_UP, EnginePool
from worker.verdicts import GUILTY, judge

log = logging.getLogger(__name__)

DECODER_BATCH = 8
"""Images that a decoding process holds at least, besides what the device needs."""
ASSUMED_BATCH = 256
"""Crops per batch that hands are sized for: two batches per device are under way."""
BROKEN_LINK_S = 5.0
"""A decoding process that lost its device goes on after so long if the device engine still runs."""


@dataclass(eq=False)
class DeviceSlot(Slot):
    """The place of a device engine."""

    device: str = "cuda"
    ends: int = 0
    """How many engines of this device have ended so far."""
    on_device: list[int] = field(default_factory=list)
    """Tickets of the images that are on the device now."""

    @property
    def fails(self) -> bool:
        """Whether its engine ended as often as it was started lately."""
        return self.failed_starts >= STARTS_BEFORE_GIVING_UP


class DevicePool(EnginePool):
    """``decoders`` decoding processes for the ``devices`` (``cuda:0``, ``cuda:1``, or ``cpu`` in their place)."""

    def __init__(
        self,
        devices: Sequence[str],
        decoders: int,
        *,
        batch: int = 0,
        compiled: bool = False,
        image_timeout_s: float = DEFAULT_IMAGE_TIMEOUT_S,
        max_rss_bytes: int = DEFAULT_ENGINE_MAX_RSS_BYTES,
    ) -> None:
        """``batch``: crops per batch, 0 to find out; ``compiled``: whether networks are compiled."""
        if not devices:
            raise ValueError("a device pool needs at least one device")
        decoders = max(decoders, len(devices))
        super().__init__(decoders, image_timeout_s=image_timeout_s, max_rss_bytes=max_rss_bytes)
        share = -(-(batch or ASSUMED_BATCH) * len(devices) // decoders)
        self._queue = Queue(DECODER_BATCH + share)
        self._batch = batch
        self._compiled = compiled
        self._names = tuple(devices)
        self._devices: list[DeviceSlot] = []
        self._listeners: list[socket.socket] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Start the processes, without waiting for them."""
        with self._changed:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="mien-")  # this user's alone
                self._listeners = [self._listen(number) for number in range(len(self._names))]
                self._devices = [DeviceSlot(number, device=name) for number, name in enumerate(self._names)]
        super().start()

    def stop(self, timeout: float = 5.0) -> None:
        """See :meth:`EnginePool.stop`."""
        super().stop(timeout)
        with self._changed:
            for listener in self._listeners:
                listener.close()
            self._devices, self._listeners = [], []
            folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def devices(self) -> list[EngineStatus]:
        """The device engines that run now, with the images on their devices."""
        with self._changed:
            running = [(slot.process, slot.ready, len(slot.on_device)) for slot in self._devices if slot.process]
        return [EngineStatus(process.pid, ready, None, images) for process, ready, images in running]

    # what the decoding processes say ----------------------------------------------------------------------------------

    def _on_other(self, slot: Slot, content: dict[str, Any]) -> None:
        match content["kind"]:
            case "lost" if self._devices:
                slot.lost_at = time.monotonic()
                if slot.linked < self._device_of(slot).ends:  # the end of the engine it had is noted already
                    self._say_gone(slot)
            case "returned":
                for ticket in content["tickets"]:
                    item = slot.hand.pop(ticket)
                    if item is not None:
                        self._returned(item)

    def _returned(self, item: Item) -> None:
        if item.verdict is not None and item.points >= GUILTY:
            code, detail = item.verdict
            self._finish(item, ImageResult(item.task.key, "failed", error_code=code, error=detail))
        else:
            self._queue.take_back([item], may_be_guilty=False)

    # what the device engines say, each from its own thread ------------------------------------------------------------

    def _on_device_message(self, process: EngineProcess, content: dict[str, Any]) -> None:
        with self._changed:
            slot = self._device_slot_of(process)
            if slot is None:
                return
            slot.last_sign = time.monotonic()
            match content["kind"]:
                case "ready":
                    slot.ready = True
                case "batch":
                    slot.on_device = content["tickets"]
                    slot.failed_starts = 0
                    return
                case "loading":
                    slot.loading = content["number"]
                case "loaded":
                    slot.loading = None
                    self._load_ends.pop(content["number"], None)
                case "unusable":
                    slot.loading = None
                    self._unusable(content)
                case "note":
                    log.info("Device %s: %s", slot.device, content["text"])
            self._feed()

    def _on_device_end(self, process: EngineProcess, code: int) -> None:
        with self._changed:
            slot = self._device_slot_of(process)
            if slot is None:
                return
            fresh = self._devices[slot.number] = DeviceSlot(
                slot.number, failed_starts=slot.failed_starts, device=slot.device, ends=slot.ends + 1
            )
            if self._stopping:
                return
            metrics.engine_restarts.labels(slot.killed_for or "ended").inc()
            log.warning(
                "The engine of device %s ended (%s) with %d images on it and is replaced. %s",
                slot.device, slot.killed_for or f"code {code}", len(slot.on_device), process.last_lines()[-500:],
            )  # fmt: skip
            if slot.loading is not None:
                self._loading_failed(slot.loading, process, code)
            elif not slot.ready:
                self._device_start_failed(fresh, process, code)
            self._suspect(slot, code)
            for decoder in self._slots:
                if self._device_of(decoder) is fresh and decoder.lost_at is not None:
                    self._say_gone(decoder)
            self._feed()
        self._wake.set()

    # under the lock ---------------------------------------------------------------------------------------------------

    def _all_slots(self) -> Sequence[Slot]:
        return [*self._slots, *self._devices]

    def _to_feed(self) -> list[Slot]:
        if not self._devices:
            return []
        # a device that still starts holds nothing up while another is there
        there = [slot for slot in self._devices if slot.ready] or [slot for slot in self._devices if not slot.fails]
        return [slot for slot in self._slots if slot.takes_images and self._device_of(slot) in there]

    def _device_of(self, slot: Slot) -> DeviceSlot:
        return self._devices[slot.number % len(self._devices)]

    def _device_slot_of(self, process: EngineProcess) -> DeviceSlot | None:
        return next((slot for slot in self._devices if slot.process is process), None)

    def _hand_over(self, slot: Slot, item: Item) -> None:
        device = self._device_of(slot)
        self._tell_spec(device, item.request.number)
        super()._hand_over(slot, item)

    def _tell_spec(self, device: DeviceSlot, number: int) -> None:
        spec = self._queue.spec(number)
        if device.process is not None and spec is not None and number not in device.specs:
            device.specs.add(number)
            device.process.send(pack_spec(number, spec))

    def _say_gone(self, slot: Slot) -> None:
        slot.lost_at = None
        slot.linked = self._device_of(slot).ends
        if slot.process is not None:
            slot.process.send(pack("device_gone"))

    def _suspect(self, device: DeviceSlot, code: int) -> None:
        """What was on a device whose engine ended: one alone is charged, several are suspects from now on."""
        there = [slot.hand.items[t] for slot in self._slots for t in device.on_device if t in slot.hand.items]
        if len(set(device.on_device)) == 1 and len(there) == 1 and there[0].suspect:
            kills = oom_kills()
            limit = HARD_LIMIT * self._max_rss_bytes
            verdict = judge(
                code, device.killed_for, self._image_timeout_s, limit, kills > self._oom_kills, doing="Classifying"
            )
            self._oom_kills = kills
            there[0].points += verdict.points
            there[0].verdict = (verdict.code, verdict.detail)
        for item in there:
            item.suspect = True

    def _unusable(self, content: dict[str, Any]) -> None:
        number = content["number"]
        for slot in self._slots:
            for ticket in [t for t, item in slot.hand.items.items() if item.request.number == number]:
                slot.hand.pop(ticket)
        self._fail_spec(number, ModelError(content["detail"], code=content["code"]))

    def _device_start_failed(self, slot: DeviceSlot, process: EngineProcess, code: int) -> None:
        self._put_off(slot)
        if all(device.fails for device in self._devices):
            self._fail_all(f"The engine of device {slot.device} ended {slot.failed_starts} times at its start",
                           process, code)  # fmt: skip

    # starting and watching --------------------------------------------------------------------------------------------

    def _path(self, number: int) -> str:
        if self._folder is None:
            raise AssertionError("the pool has not been started")
        return str(Path(self._folder.name) / str(number))

    def _listen(self, number: int) -> socket.socket:
        """The socket of a device, which outlives its engines: connections wait in it for the next one."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._path(number))
        listener.listen(128)
        return listener

    def _start_engine(self, number: int) -> EngineProcess:
        slot = self._slots[number]
        device = self._device_of(slot)
        slot.linked = device.ends
        config = {
            "parent": os.getpid(),
            "device": self._path(device.number),
            "max_rss_bytes": self._max_rss_bytes,
        }
        return EngineProcess("worker.decoder", config, self._on_message, self._on_end)

    def _start_due(self, now: float) -> None:
        for number in range(len(self._devices)):
            with self._changed:
                if self._stopping or not self._devices:
                    return
                slot = self._devices[number]
                if slot.process is None and slot.start_at <= now:
                    slot.last_sign = time.monotonic()
                    slot.process = self._start_device(slot)
                    for spec in sorted({i.request.number for s in self._slots for i in s.hand.items.values()}):
                        self._tell_spec(slot, spec)
        super()._start_due(now)

    def _start_device(self, slot: DeviceSlot) -> EngineProcess:
        kind, _, index = slot.device.partition(":")
        listener = self._listeners[slot.number].fileno()
        config = {
            "parent": os.getpid(),
            "device": kind,
            "listener": listener,
            "batch": self._batch,
            "compiled": self._compiled,
        }
        # each engine sees its own GPU only: nothing of it ends up on another
        environment = {}
        if kind == "cuda":
            place, seen = int(index or 0), visible_gpus()
            chosen = seen[place] if place < len(seen) else str(place)
            environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": chosen}
        return EngineProcess(
            "worker.device_engine", config, self._on_device_message, self._on_device_end,
            pass_fds=(listener,), environment=environment,
        )  # fmt: skip

    def _kill_overdue(self, now: float) -> None:
        super()._kill_overdue(now)
        with self._changed:
            for slot in self._devices:
                if slot.process is None or slot.killed_for is not None:
                    continue
                busy = slot.on_device or slot.loading is not None or not slot.ready
                if busy and now - slot.last_sign > self._patience(slot):
                    slot.killed_for = "timeout"
                    slot.process.kill()
            for decoder in self._slots:
                if decoder.lost_at is not None and now - decoder.lost_at > BROKEN_LINK_S:
                    self._say_gone(decoder)  # only the connection broke
