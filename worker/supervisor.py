"""The pool of engine processes: starts, feeds, watches and replaces them. Runs no native image or model code itself.

Every image in an engine's hands is known here. When an engine ends, images that it had not begun go back into the
queue; those it had begun become suspects and go through an engine one at a time, alone. An image has failed only when
it ended engines while it was alone in them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mien.errors import ModelError
from mien.pipeline import DEFAULT_ENGINE_MAX_RSS_BYTES, DEFAULT_IMAGE_TIMEOUT_S
from worker.engine_process import EngineProcess
from worker.memory import oom_kills, resident_bytes
from worker.messages import EngineSpec, ImageResult, ImageTask, pack_image, pack_spec, unpack_result
from worker.verdicts import GUILTY, judge

__all__ = ["Aborted", "EnginePool", "EngineStartError", "EngineStatus"]

log = logging.getLogger(__name__)

BATCHES = {"cpu": 8, "cuda": 64}
"""Images an engine takes up at once, per device."""
HAND_BYTES = 48 << 10
"""Paths in an engine's hands, so that its pipe never fills."""
START_TIMEOUT_S = 120.0
LOAD_TIMEOUT_S = 300.0
STARTS_BEFORE_GIVING_UP = 5
LOADS_BEFORE_GIVING_UP = 3
LONGEST_PAUSE_S = 5.0
HARD_LIMIT = 2
"""An engine that holds this many times its memory limit while it works is killed."""
_TICK_S = 0.05
_MEMORY_EVERY_S = 0.5


class Aborted(Exception):  # noqa: N818 - not an error: somebody wanted it
    """The classification was given up, by its caller or because the pool stops."""


class EngineStartError(Exception):
    """No engine can start, or a model ends every engine that loads it. The message has the engine's last lines."""


@dataclass(frozen=True)
class EngineStatus:
    """One engine now: its process, memory and images in hand."""

    pid: int
    ready: bool
    resident_bytes: int | None
    images: int


@dataclass(eq=False)
class _Request:
    """One call of ``classify``."""

    spec: EngineSpec
    number: int
    tasks: Sequence[ImageTask]
    interactive: bool
    waiting: deque[_Item]
    results: list[ImageResult | None]
    left: int
    error: Exception | None = None


@dataclass(eq=False)
class _Item:
    """One image of a request; ``points`` as in worker/verdicts.py."""

    request: _Request
    index: int
    suspect: bool = False
    begun: bool = False
    points: int = 0

    @property
    def task(self) -> ImageTask:
        return self.request.tasks[self.index]

    @property
    def size(self) -> int:
        return len(self.task.root) + len(self.task.path) + 200


@dataclass(eq=False)
class _Slot:
    """A place for an engine; its occupant changes."""

    number: int
    process: EngineProcess | None = None
    ready: bool = False
    loading: int | None = None
    hand: dict[int, _Item] = field(default_factory=dict)
    specs: set[int] = field(default_factory=set)
    last_sign: float = 0.0
    killed_for: str | None = None
    retired: bool = False
    failed_starts: int = 0
    start_at: float = 0.0

    @property
    def alone(self) -> bool:
        return any(item.suspect for item in self.hand.values())


class EnginePool:
    """``size`` engine processes on ``device``; thread-safe."""

    def __init__(
        self,
        size: int,
        device: str = "cpu",
        *,
        image_timeout_s: float = DEFAULT_IMAGE_TIMEOUT_S,
        max_rss_bytes: int = DEFAULT_ENGINE_MAX_RSS_BYTES,
    ) -> None:
        if size < 1:
            raise ValueError("a pool needs at least one engine")
        self.size = size
        self.device = device
        self._image_timeout_s = image_timeout_s
        self._max_rss_bytes = max_rss_bytes
        self._batch = BATCHES[device]
        self._window = 2 * self._batch
        self._slots = [_Slot(number) for number in range(size)]
        self._requests: deque[_Request] = deque()
        self._suspects: deque[_Item] = deque()
        self._numbers: dict[EngineSpec, int] = {}
        self._load_ends: dict[int, int] = {}
        self._tickets = 0
        self._oom_kills = 0
        self._stopping = False
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._watcher: threading.Thread | None = None
        self._wake = threading.Event()

    def start(self) -> None:
        """Start the engines, without waiting for them."""
        with self._lock:
            if self._watcher is not None:
                return
            self._stopping = False
            self._oom_kills = oom_kills()
            # engines are started by this thread alone: on Linux they die with the thread that made them
            self._watcher = threading.Thread(target=self._watch, name="engines", daemon=True)
            self._watcher.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End every engine; calls under way raise :class:`Aborted`. Engines that do not leave in time are killed."""
        with self._lock:
            self._stopping = True
            for request in list(self._requests):
                self._fail(request, Aborted("the engines stop"))
            processes = [slot.process for slot in self._slots if slot.process is not None]
            watcher = self._watcher
        for process in processes:
            process.hang_up()
        deadline = time.monotonic() + timeout
        late = [process for process in processes if not process.join(deadline - time.monotonic())]
        for process in late:
            process.kill()
        for process in late:
            process.join(5)
        self._wake.set()
        if watcher is not None:
            watcher.join(5)
        with self._lock:
            self._watcher = None

    def engines(self) -> list[EngineStatus]:
        """The engines that run now."""
        with self._lock:
            running = [(slot.process, slot.ready, len(slot.hand)) for slot in self._slots if slot.process is not None]
        return [EngineStatus(p.pid, ready, resident_bytes(p.pid), images) for p, ready, images in running]

    def classify(
        self,
        spec: EngineSpec,
        images: Sequence[ImageTask],
        *,
        on_progress: Callable[[int], None] | None = None,
        abort: threading.Event | None = None,
        interactive: bool = False,
        alone: bool = False,
    ) -> list[ImageResult]:
        """Classify images and give their results in the same order. Blocks; several threads may call at once.

        ``on_progress`` gets the number of images done so far; ``interactive`` images go before all others; with
        ``alone`` each image has an engine to itself, as one that is suspected of ending them.

        Raises:
            Aborted: ``abort`` was set or the pool stops; what was not done is dropped.
            ModelError: the spec's model cannot be used.
            EngineStartError: no engine can start.
        """
        if not images:
            return []
        with self._lock:
            if self._stopping or self._watcher is None:
                raise Aborted("the engines are not running")
            request = self._accept(spec, images, interactive, alone)
        told = 0
        while True:
            with self._changed:
                if abort is not None and abort.is_set():
                    self._fail(request, Aborted("the caller gave up"))
                if not request.left or request.error is not None:
                    break
                self._changed.wait(0.1)
                done = len(images) - request.left
            if on_progress is not None and done != told:
                told = done
                on_progress(done)
        if request.error is not None:
            raise request.error
        results = [result for result in request.results if result is not None]
        if len(results) != len(images):
            raise AssertionError(f"{len(images)} images went in and {len(results)} results came out")
        if on_progress is not None and told != len(images):
            on_progress(len(images))
        return results

    # everything below runs under the lock, except _watch and what it starts ------------------------------------------

    def _accept(self, spec: EngineSpec, images: Sequence[ImageTask], interactive: bool, alone: bool) -> _Request:
        number = self._numbers.setdefault(spec, len(self._numbers))
        request = _Request(spec, number, images, interactive, deque(), [None] * len(images), len(images))
        items = [_Item(request, index, suspect=alone) for index in range(len(images))]
        (self._suspects if alone else request.waiting).extend(items)
        self._requests.append(request)
        self._feed()
        return request

    def _fail(self, request: _Request, error: Exception) -> None:
        if request.left and request.error is None:
            request.error = error
            self._forget(request)
            self._changed.notify_all()

    def _forget(self, request: _Request) -> None:
        request.waiting.clear()
        self._suspects = deque(item for item in self._suspects if item.request is not request)
        if request in self._requests:
            self._requests.remove(request)

    def _feed(self) -> None:
        """Fill the engines' hands: one image at a time to the engine that holds the fewest."""
        while True:
            ready = [s for s in self._slots if s.ready and s.killed_for is None and not s.retired and not s.alone]
            reserved = self._reserved(ready)
            for slot in sorted(ready, key=lambda s: len(s.hand)):
                item = self._next(slot, reserved)
                if item is not None:
                    self._hand_over(slot, item)
                    break
            else:
                return

    def _reserved(self, ready: list[_Slot]) -> _Slot | None:
        """The engine that runs empty so that a suspect can be alone in it; None if one is free for that soon anyway."""
        if not self._suspects or any(s.alone or not (s.ready or s.failed_starts) for s in self._slots):
            return None
        return min(ready, key=lambda s: len(s.hand), default=None)

    def _next(self, slot: _Slot, reserved: _Slot | None) -> _Item | None:
        held = len(slot.hand)
        if sum(item.size for item in slot.hand.values()) >= HAND_BYTES and held:
            return None
        if held < self._window + self._batch:
            for request in self._requests:
                if request.interactive and request.waiting:
                    return request.waiting.popleft()
        if not held and self._suspects:
            return self._suspects.popleft()
        if held >= self._window or slot is reserved:
            return None
        for _ in range(len(self._requests)):  # requests take turns, image by image
            request = self._requests[0]
            self._requests.rotate(-1)
            if request.waiting:
                return request.waiting.popleft()
        return None

    def _hand_over(self, slot: _Slot, item: _Item) -> None:
        process = slot.process
        if process is None:
            raise AssertionError("an empty slot was fed")
        self._tickets += 1
        if not slot.hand:
            slot.last_sign = time.monotonic()
        item.begun = False
        slot.hand[self._tickets] = item
        number = item.request.number
        if number not in slot.specs:
            slot.specs.add(number)
            process.send(pack_spec(number, item.request.spec))
        process.send(pack_image(self._tickets, number, item.task, first=item.request.interactive))

    def _on_message(self, process: EngineProcess, content: dict[str, Any]) -> None:
        with self._lock:
            slot = self._slot_of(process)
            if slot is None:
                return
            slot.last_sign = time.monotonic()
            match content["kind"]:
                case "begin":
                    item = slot.hand.get(content["ticket"])
                    if item is not None:
                        item.begun = True
                case "result":
                    item = slot.hand.pop(content["key"], None)
                    if item is not None:
                        self._finish(item, unpack_result(content, item.task.key))
                        self._feed()
                case "ready":
                    slot.ready = True
                    slot.failed_starts = 0
                    self._feed()
                case "loading":
                    slot.loading = content["number"]
                case "loaded":
                    slot.loading = None
                    self._load_ends.pop(content["number"], None)
                case "unusable":
                    slot.loading = None
                    self._unusable(slot, content)
                case "retire":
                    log.info("Engine %d holds %d MiB and is replaced.", process.pid, content["resident"] >> 20)
                    slot.retired = True

    def _slot_of(self, process: EngineProcess) -> _Slot | None:
        return next((slot for slot in self._slots if slot.process is process), None)

    def _finish(self, item: _Item, result: ImageResult) -> None:
        request = item.request
        if request.error is not None or request.results[item.index] is not None:
            return
        request.results[item.index] = result
        request.left -= 1
        if not request.left:
            self._forget(request)
        self._changed.notify_all()

    def _unusable(self, slot: _Slot, content: dict[str, Any]) -> None:
        """The model of a spec cannot be used: its requests end with the reason."""
        slot.hand = {t: item for t, item in slot.hand.items() if item.request.number != content["number"]}
        for request in [r for r in self._requests if r.number == content["number"]]:
            self._fail(request, ModelError(content["detail"], code=content["code"]))
        self._feed()

    def _on_end(self, process: EngineProcess, code: int) -> None:
        with self._lock:
            slot = self._slot_of(process)
            if slot is None:
                return
            items = [item for item in slot.hand.values() if item.request.error is None]
            was = (slot.ready, slot.loading, slot.killed_for, slot.retired)
            alone = slot.alone
            failed_starts = slot.failed_starts
            self._slots[slot.number] = slot = _Slot(slot.number, failed_starts=failed_starts)
            if self._stopping:
                return
            ready, loading, killed_for, retired = was
            if not ready:
                self._start_failed(slot, process, code)
            if not retired:
                log.warning(
                    "Engine %d ended (%s) with %d images in hand; it is replaced. %s",
                    process.pid, killed_for or f"code {code}", len(items), process.last_lines()[-500:],
                )  # fmt: skip
            if loading is not None:
                self._loading_failed(loading, process, code)
            elif alone and items and items[0].begun:
                self._charge(items[0], code, killed_for)
                items = []
            self._take_back(items, may_be_guilty=loading is None)
            self._feed()
        self._wake.set()

    def _take_back(self, items: list[_Item], *, may_be_guilty: bool) -> None:
        """Images of an ended engine: those begun become suspects, the others go back to the front of their queue."""
        for item in reversed(items):
            if item.request.error is not None:
                continue
            if item.begun and may_be_guilty:
                item.suspect = True
            (self._suspects if item.suspect else item.request.waiting).appendleft(item)

    def _charge(self, item: _Item, code: int, killed_for: str | None) -> None:
        """An engine ended with this image alone in it."""
        kills = oom_kills()
        verdict = judge(
            code, killed_for, self._image_timeout_s, HARD_LIMIT * self._max_rss_bytes, kills > self._oom_kills
        )
        self._oom_kills = kills
        item.points += verdict.points
        if item.points < GUILTY:
            self._suspects.appendleft(item)
            return
        self._finish(item, ImageResult(item.task.key, "failed", error_code=verdict.code, error=verdict.detail))

    def _start_failed(self, slot: _Slot, process: EngineProcess, code: int) -> None:
        slot.failed_starts += 1
        slot.start_at = time.monotonic() + min(0.2 * 2**slot.failed_starts, LONGEST_PAUSE_S)
        if slot.failed_starts >= STARTS_BEFORE_GIVING_UP and not any(s.ready for s in self._slots):
            error = EngineStartError(
                f"An engine ended {slot.failed_starts} times before it was ready (code {code}). Its last lines: "
                f"{process.last_lines()[-1500:] or 'none'}"
            )
            for request in list(self._requests):
                self._fail(request, error)

    def _loading_failed(self, number: int, process: EngineProcess, code: int) -> None:
        self._load_ends[number] = self._load_ends.get(number, 0) + 1
        if self._load_ends[number] >= LOADS_BEFORE_GIVING_UP:
            self._load_ends.pop(number)
            error = EngineStartError(
                f"The model ends every engine that loads it (code {code}). The last lines: "
                f"{process.last_lines()[-1500:] or 'none'}"
            )
            for request in [r for r in self._requests if r.number == number]:
                self._fail(request, error)

    # the watcher ------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        last = memory_at = time.monotonic()
        while not self._stopping:
            now = time.monotonic()
            if now - last > 2.0:  # this process was held up itself; the engines' silence means nothing
                with self._lock:
                    for slot in self._slots:
                        slot.last_sign += now - last
            last = now
            try:
                self._start_due(now)
                self._kill_overdue(now)
                if now - memory_at >= _MEMORY_EVERY_S:
                    memory_at = now
                    self._kill_swollen()
            except Exception:
                log.exception("The engines' watcher stumbled and goes on.")
                time.sleep(1)
            self._wake.wait(_TICK_S)
            self._wake.clear()

    def _start_due(self, now: float) -> None:
        with self._lock:
            due = [slot for slot in self._slots if slot.process is None and slot.start_at <= now]
        for slot in due:
            config = {"parent": os.getpid(), "number": slot.number, "device": self.device, "batch": self._batch}
            with self._lock:
                if self._stopping:
                    return
                slot.last_sign = time.monotonic()
                slot.process = EngineProcess(
                    {**config, "max_rss_bytes": self._max_rss_bytes}, self._on_message, self._on_end
                )

    def _kill_overdue(self, now: float) -> None:
        with self._lock:
            for slot in self._slots:
                if slot.process is None or slot.killed_for is not None:
                    continue
                if not slot.ready:
                    limit = START_TIMEOUT_S
                elif slot.loading is not None:
                    limit = LOAD_TIMEOUT_S
                else:
                    limit = self._image_timeout_s
                if now - slot.last_sign > limit and (slot.hand or not slot.ready):
                    slot.killed_for = "timeout"
                    slot.process.kill()

    def _kill_swollen(self) -> None:
        with self._lock:
            working = [(slot, slot.process) for slot in self._slots if slot.process is not None and slot.hand]
        for slot, process in working:
            resident = resident_bytes(process.pid)
            if resident is not None and resident > HARD_LIMIT * self._max_rss_bytes:
                with self._lock:
                    if slot.process is process and slot.killed_for is None:
                        slot.killed_for = "memory"
                        process.kill()
