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
from collections.abc import Callable, Sequence
from typing import Any

from mien import metrics
from mien.errors import ModelError
from mien.pipeline import DEFAULT_ENGINE_MAX_RSS_BYTES, DEFAULT_IMAGE_TIMEOUT_S
from worker.engine_process import EngineProcess
from worker.memory import oom_kills, resident_bytes
from worker.messages import EngineSpec, ImageResult, ImageTask, unpack_result
from worker.queueing import Item, Queue
from worker.slots import EngineStatus, Slot
from worker.verdicts import GUILTY, judge

log = logging.getLogger(__name__)

BATCH = 8
"""Images an engine takes up at once."""
START_TIMEOUT_S = 120.0
LOAD_TIMEOUT_S = 300.0
STARTS_BEFORE_GIVING_UP = 5
LOADS_BEFORE_GIVING_UP = 3
LONGEST_PAUSE_S = 5.0
HARD_LIMIT = 2
"""An engine that holds this many times its memory limit while it works is killed."""
_TICK_S = 0.2
_MEMORY_EVERY_S = 0.5
_HELD_UP_S = 2.0


class Aborted(Exception):  # noqa: N818 - not an error: somebody wanted it
    """The classification was given up, by its caller or because the pool stops."""


class EngineStartError(Exception):
    """No engine can start, or a model ends every engine that loads it. The message has the engine's last lines."""


class EnginePool:
    """``size`` engine processes on the CPU; thread-safe."""

    def __init__(
        self,
        size: int,
        *,
        image_timeout_s: float = DEFAULT_IMAGE_TIMEOUT_S,
        max_rss_bytes: int = DEFAULT_ENGINE_MAX_RSS_BYTES,
    ) -> None:
        if size < 1:
            raise ValueError("a pool needs at least one engine")
        self.size = size
        self._image_timeout_s = image_timeout_s
        self._max_rss_bytes = max_rss_bytes
        self._slots = [Slot(number) for number in range(size)]
        self._queue = Queue(BATCH)
        self._load_ends: dict[int, int] = {}
        self._tickets = 0
        self._oom_kills = 0
        self._stopping = False
        self._changed = threading.Condition(threading.RLock())
        self._watcher: threading.Thread | None = None
        self._wake = threading.Event()

    @property
    def images_in_hand(self) -> int:
        """Images that fill the hands of all engines."""
        return self.size * self._queue.window

    def start(self) -> None:
        """Start the engines, without waiting for them."""
        with self._changed:
            if self._watcher is not None:
                return
            self._stopping = False
            self._oom_kills = oom_kills()
            # engines are started by this thread alone: on Linux they die with the thread that made them
            self._watcher = threading.Thread(target=self._watch, name="engines", daemon=True)
            self._watcher.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End every engine; calls under way raise :class:`Aborted`. Engines that do not leave in time are killed."""
        with self._changed:
            self._stopping = True
            for request in list(self._queue.requests):
                self._queue.fail(request, Aborted("the engines stop"))
            self._changed.notify_all()
            processes = [slot.process for slot in self._all_slots() if slot.process is not None]
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
        with self._changed:
            self._watcher = None

    def engines(self) -> list[EngineStatus]:
        """The engines that run now."""
        with self._changed:
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
        with self._changed:
            if self._stopping or self._watcher is None:
                raise Aborted("the engines are not running")
            request = self._queue.accept(spec, images, interactive=interactive, alone=alone)
            self._feed()
        told = 0
        while True:
            with self._changed:
                if abort is not None and abort.is_set():
                    self._queue.fail(request, Aborted("the caller gave up"))
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

    # what engines say, from each engine's own thread ------------------------------------------------------------------

    def _on_message(self, process: EngineProcess, content: dict[str, Any]) -> None:
        with self._changed:
            slot = self._slot_of(process)
            if slot is None:
                return
            slot.last_sign = time.monotonic()
            match content["kind"]:
                case "begin":
                    item = slot.hand.items.get(content["ticket"])
                    if item is not None:
                        item.begun = True
                    return  # nothing comes free by it
                case "results":
                    self._take_results(slot, content["results"])
                case "ready":
                    slot.ready = True
                    slot.failed_starts = 0
                case "loading":
                    slot.loading = content["number"]
                case "loaded":
                    slot.loading = None
                    self._load_ends.pop(content["number"], None)
                case "unusable":
                    slot.loading = None
                    for ticket in [t for t, i in slot.hand.items.items() if i.request.number == content["number"]]:
                        slot.hand.pop(ticket)
                    self._fail_spec(content["number"], ModelError(content["detail"], code=content["code"]))
                case "retire":
                    log.info("Engine %d holds %d MiB and is replaced.", process.pid, content["resident"] >> 20)
                    slot.retired = True
                case _:
                    self._on_other(slot, content)
            self._feed()

    def _take_results(self, slot: Slot, results: list[dict[str, Any]]) -> None:
        for result in results:
            item = slot.hand.pop(result["key"])
            if item is not None:
                self._finish(item, unpack_result(result, item.task.key))

    def _on_other(self, slot: Slot, content: dict[str, Any]) -> None:
        """For pools whose engines say more."""

    def _on_end(self, process: EngineProcess, code: int) -> None:
        with self._changed:
            slot = self._slot_of(process)
            if slot is None:
                return
            fresh = self._slots[slot.number] = Slot(slot.number, failed_starts=slot.failed_starts)
            if self._stopping:
                return
            items = list(slot.hand.items.values())
            metrics.engine_restarts.labels("retired" if slot.retired else slot.killed_for or "ended").inc()
            if not slot.retired:
                log.warning(
                    "Engine %d ended (%s) with %d images in hand and is replaced. %s",
                    process.pid, slot.killed_for or f"code {code}", len(items), process.last_lines()[-500:],
                )  # fmt: skip
            if not slot.ready:
                self._start_failed(fresh, process, code)
            if slot.loading is not None:
                self._loading_failed(slot.loading, process, code)
                self._queue.take_back(items, may_be_guilty=False)
            elif slot.hand.alone and items[0].begun and not slot.retired:
                self._charge(items[0], code, slot.killed_for)
            else:
                self._queue.take_back(items, may_be_guilty=True)
            self._feed()
        self._wake.set()

    # under the lock ---------------------------------------------------------------------------------------------------

    def _all_slots(self) -> Sequence[Slot]:
        """Every place for a process."""
        return self._slots

    def _to_feed(self) -> list[Slot]:
        """The engines that may be given images."""
        return [slot for slot in self._slots if slot.takes_images]

    def _slot_of(self, process: EngineProcess) -> Slot | None:
        return next((slot for slot in self._slots if slot.process is process), None)

    def _feed(self) -> None:
        """Fill the engines' hands: one image at a time to the engine that holds the fewest; then send what each got."""
        slots = self._to_feed()
        coming = any(slot.process is not None and not slot.ready and not slot.failed_starts for slot in self._slots)
        fed = True
        while fed:
            fed = False
            reserved = self._queue.reserved([slot.hand for slot in slots], one_comes_free=coming)
            for slot in sorted(slots, key=lambda slot: len(slot.hand)):
                item = self._queue.next_for(slot.hand, reserved)
                if item is not None:
                    self._hand_over(slot, item)
                    fed = True
                    break
        for slot in slots:
            slot.send_outgoing()

    def _hand_over(self, slot: Slot, item: Item) -> None:
        if not slot.hand:
            slot.last_sign = time.monotonic()
        self._tickets += 1
        slot.take(self._tickets, item)

    def _finish(self, item: Item, result: ImageResult) -> None:
        self._queue.finish(item, result)
        if not item.request.left:  # who waits for less looks by itself, ten times a second
            self._changed.notify_all()

    def _fail_spec(self, number: int, error: Exception) -> None:
        for request in [r for r in self._queue.requests if r.number == number]:
            self._queue.fail(request, error)
        self._changed.notify_all()

    def _charge(self, item: Item, code: int, killed_for: str | None) -> None:
        """An engine ended with this image alone in it."""
        kills = oom_kills()
        verdict = judge(
            code, killed_for, self._image_timeout_s, HARD_LIMIT * self._max_rss_bytes, kills > self._oom_kills
        )
        self._oom_kills = kills
        item.points += verdict.points
        if item.points >= GUILTY:
            self._finish(item, ImageResult(item.task.key, "failed", error_code=verdict.code, error=verdict.detail))
        else:
            self._queue.take_back([item], may_be_guilty=True)

    def _start_failed(self, slot: Slot, process: EngineProcess, code: int) -> None:
        self._put_off(slot)
        if slot.failed_starts >= STARTS_BEFORE_GIVING_UP and not any(s.ready for s in self._slots):
            self._fail_all(f"An engine ended {slot.failed_starts} times before it was ready", process, code)

    def _put_off(self, slot: Slot) -> None:
        """A start failed; the next waits longer."""
        slot.failed_starts += 1
        slot.start_at = time.monotonic() + min(0.1 * 2**slot.failed_starts, LONGEST_PAUSE_S)

    def _fail_all(self, what: str, process: EngineProcess, code: int) -> None:
        error = _start_error(what, process, code)
        for request in list(self._queue.requests):
            self._queue.fail(request, error)
        self._changed.notify_all()

    def _loading_failed(self, number: int, process: EngineProcess, code: int) -> None:
        self._load_ends[number] = self._load_ends.get(number, 0) + 1
        if self._load_ends[number] < LOADS_BEFORE_GIVING_UP:
            return
        del self._load_ends[number]
        self._fail_spec(number, _start_error("The model ends every engine that loads it", process, code))

    # the watcher's own thread -----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        last = memory_at = time.monotonic()
        while not self._stopping:
            now = time.monotonic()
            if now - last > _HELD_UP_S:  # this process was held up itself: the engines' silence means nothing
                with self._changed:
                    for slot in self._all_slots():
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
        for number in range(self.size):
            with self._changed:
                slot = self._slots[number]
                if self._stopping or slot.process is not None or slot.start_at > now:
                    continue
                slot.last_sign = time.monotonic()
                slot.process = self._start_engine(number)

    def _start_engine(self, number: int) -> EngineProcess:
        """Its configuration: see :class:`worker.engine.EngineConfig`."""
        config = {
            "parent": os.getpid(),
            "batch": self._queue.batch,
            "max_rss_bytes": self._max_rss_bytes,
        }
        return EngineProcess("worker.engine", config, self._on_message, self._on_end)

    def _patience(self, slot: Slot) -> float:
        """Seconds that an engine may be silent."""
        if not slot.ready:
            return START_TIMEOUT_S
        return LOAD_TIMEOUT_S if slot.loading is not None else self._image_timeout_s

    def _kill_overdue(self, now: float) -> None:
        with self._changed:
            for slot in self._slots:
                if slot.process is None or slot.killed_for is not None:
                    continue
                if now - slot.last_sign > self._patience(slot) and (slot.hand or not slot.ready):
                    slot.killed_for = "timeout"
                    slot.process.kill()

    def _kill_swollen(self) -> None:
        with self._changed:
            working = [(slot, slot.process) for slot in self._slots if slot.process is not None and slot.hand]
        for slot, process in working:
            resident = resident_bytes(process.pid)
            if resident is None or resident <= HARD_LIMIT * self._max_rss_bytes:
                continue
            with self._changed:
                if slot.process is process and slot.killed_for is None:
                    slot.killed_for = "memory"
                    process.kill()


def _start_error(what: str, process: EngineProcess, code: int) -> EngineStartError:
    return EngineStartError(f"{what} (code {code}). Its last lines: {process.last_lines()[-1500:] or 'none'}")
