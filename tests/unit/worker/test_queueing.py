"""Which image goes where: turns, urgency, suspects alone, nothing lost and nothing twice."""

from __future__ import annotations

from worker.messages import EngineSpec, ImageResult, ImageTask
from worker.queueing import HAND_BYTES, Hand, Item, Queue, Request

SPEC = EngineSpec("folder", "rev", "cpu", "fp32", "detect", 640, 0.7, 0, 1000, 1000)


def tasks(count: int, path: bytes = b"p") -> list[ImageTask]:
    return [ImageTask(key, b"/root", path) for key in range(count)]


def accept(queue: Queue, count: int, *, interactive: bool = False, alone: bool = False) -> Request:
    return queue.accept(SPEC, tasks(count), interactive=interactive, alone=alone)


def fill(queue: Queue, hand: Hand, limit: int = 1000, reserved: Hand | None = None) -> list[Item]:
    given = []
    while len(given) < limit and (item := queue.next_for(hand, reserved)) is not None:
        hand.put(len(hand.items) + 1000 * len(given), item)
        given.append(item)
    return given


def test_a_hand_holds_two_batches() -> None:
    queue = Queue(batch=4)
    accept(queue, 20)
    hand = Hand()
    assert [item.index for item in fill(queue, hand)] == list(range(8))


def test_long_paths_fill_a_hand_sooner() -> None:
    queue = Queue(batch=64)
    queue.accept(SPEC, tasks(100, b"x" * 4000), interactive=False, alone=False)
    hand = Hand()
    fill(queue, hand)
    assert HAND_BYTES <= hand.size < HAND_BYTES + 5000


def test_requests_take_turns() -> None:
    queue = Queue(batch=4)
    first, second = accept(queue, 10), accept(queue, 2)
    given = fill(queue, Hand())
    assert [item.request is first for item in given] == [True, False, True, False, True, True, True, True]
    assert not second.waiting


def test_urgent_images_go_first_even_into_a_full_hand() -> None:
    queue = Queue(batch=2)
    accept(queue, 10)
    hand = Hand()
    fill(queue, hand)
    urgent = accept(queue, 1, interactive=True)
    (item,) = fill(queue, hand)
    assert item.request is urgent


def test_suspects_go_alone() -> None:
    queue = Queue(batch=4)
    accept(queue, 2, alone=True)
    accept(queue, 10)
    hand = Hand()
    (item,) = fill(queue, hand)
    assert item.suspect
    assert hand.alone
    other = Hand()
    other.put(1, Item(item.request, 1))
    assert not any(i.suspect for i in fill(queue, other))


def test_one_engine_runs_empty_for_waiting_suspects() -> None:
    queue = Queue(batch=4)
    accept(queue, 1, alone=True)
    bulk = accept(queue, 10)
    busy, busier = Hand(), Hand()
    busy.put(1, bulk.waiting.popleft())
    busier.put(1, bulk.waiting.popleft())
    busier.put(2, bulk.waiting.popleft())
    assert queue.reserved([busier, busy], one_comes_free=False) is busy
    assert queue.reserved([busier, busy], one_comes_free=True) is None
    assert fill(queue, busy, reserved=busy) == []
    busy.pop(1)
    assert fill(queue, busy, reserved=busy)[0].suspect


def test_images_of_an_ended_engine_come_back_in_order() -> None:
    queue = Queue(batch=4)
    request = accept(queue, 10)
    hand = Hand()
    given = fill(queue, hand)
    given[0].begun = given[1].begun = True
    queue.take_back(hand.items.values(), may_be_guilty=True)
    assert [item.index for item in queue.suspects] == [0, 1]
    assert [item.index for item in request.waiting] == list(range(2, 10))


def test_nobody_is_suspected_of_an_end_while_a_model_loads() -> None:
    queue = Queue(batch=4)
    request = accept(queue, 3)
    hand = Hand()
    given = fill(queue, hand)
    given[0].begun = True
    queue.take_back(hand.items.values(), may_be_guilty=False)
    assert not queue.suspects
    assert [item.index for item in request.waiting] == [0, 1, 2]


def test_the_first_result_stands_and_a_done_request_is_forgotten() -> None:
    queue = Queue(batch=4)
    request = accept(queue, 1)
    item = request.waiting[0]
    queue.finish(item, ImageResult(0, "no_face"))
    queue.finish(item, ImageResult(0, "failed", error_code="timeout", error="late"))
    assert request.results == [ImageResult(0, "no_face")]
    assert request.left == 0
    assert not queue.requests


def test_a_failed_request_leaves_nothing_behind() -> None:
    queue = Queue(batch=4)
    request, suspect = accept(queue, 5), accept(queue, 2, alone=True)
    queue.fail(request, RuntimeError("no"))
    queue.fail(suspect, RuntimeError("no"))
    assert not queue.suspects
    assert not queue.requests
    queue.take_back([Item(request, 0)], may_be_guilty=True)
    assert queue.next_for(Hand(), None) is None
