"""Batch sizes of a device, and which crops go together. No torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import numpy as np

from worker.device_batches import GROW_AFTER, BatchSize
from worker.device_link import CropsHead
from worker.device_queue import Crop, CropQueue, DeviceImage


def test_shapes_are_few_and_crops_are_padded_to_the_next() -> None:
    size = BatchSize(256)
    assert size.shapes == (8, 32, 128, 256)
    assert [size.shape_for(count) for count in (1, 8, 9, 100, 129, 256)] == [8, 8, 32, 128, 256, 256]
    assert BatchSize(4).shapes == (4,)
    assert BatchSize(4).shape_for(6) == 6
    assert BatchSize(32).shapes == (8, 32)


def test_out_of_memory_halves_and_going_well_grows_again() -> None:
    size = BatchSize(64)
    assert size.too_large(64)
    assert size.now == 32
    assert size.too_large(32)
    assert size.now == 16
    for _ in range(2 * GROW_AFTER):
        size.went_well(8)  # smaller batches prove nothing
    assert size.now == 16
    for _ in range(2 * GROW_AFTER):
        size.went_well(16)
    assert size.now == 32
    for _ in range(2 * GROW_AFTER):
        size.went_well(32)
    assert size.now == 64
    for _ in range(10 * GROW_AFTER):
        size.went_well(64)
    assert size.now == 64


def test_a_size_that_fails_again_is_tried_less_often() -> None:
    size, tries = BatchSize(64), 0
    for _ in range(20 * GROW_AFTER):
        if size.now == 64:
            size.too_large(64)
            tries += 1
        else:
            size.went_well(size.now)
    assert 3 <= tries <= 6


def test_a_single_crop_that_does_not_fit_cannot_be_halved() -> None:
    size = BatchSize(2)
    assert size.too_large(2)
    assert size.now == 1
    assert not size.too_large(1)


class Nobody:
    def answer(self, frames: Iterable[bytes]) -> None: ...
    def close(self) -> None: ...


def crops(ticket: int, count: int = 1, spec: int = 0, urgent: bool = False, alone: bool = False) -> list[Crop]:
    head = CropsHead(spec, ticket, count, 0, count, 4, 4, urgent, alone, "")
    image = DeviceImage(Nobody(), head)
    return [Crop(image, i, np.zeros((4, 4, 3), np.uint8)) for i in range(count)]


def tickets(chosen: list[Crop]) -> list[int]:
    return [crop.image.head.ticket for crop in chosen]


def test_a_batch_is_filled_across_images_of_one_spec() -> None:
    queue = CropQueue()
    for each in (crops(1, 3), crops(2, 1, spec=5), crops(3, 4), crops(4, 2)):
        queue.put(each)
    assert tickets(queue.take(lambda _: 8)) == [1, 1, 1, 3, 3, 3, 3, 4]
    assert tickets(queue.take(lambda _: 8)) == [2]  # specs take turns
    assert tickets(queue.take(lambda _: 8)) == [4]


def test_urgent_crops_go_first_and_suspects_alone() -> None:
    queue = CropQueue()
    for each in (crops(1, 2), crops(2, 3, alone=True), crops(3, 1, alone=True), crops(4, 1, urgent=True)):
        queue.put(each)
    assert tickets(queue.take(lambda _: 8)) == [4]
    assert tickets(queue.take(lambda _: 2)) == [2, 2]
    assert tickets(queue.take(lambda _: 2)) == [2]
    assert tickets(queue.take(lambda _: 2)) == [3]
    assert tickets(queue.take(lambda _: 8)) == [1, 1]


def test_crops_of_a_spec_that_is_not_known_yet_wait() -> None:
    queue = CropQueue()
    queue.put(crops(1, spec=7))
    queue.put(crops(2, spec=8))
    assert tickets(queue.take(lambda spec: 4 if spec == 8 else 0)) == [2]
    known: set[int] = set()
    got: list[int] = []
    taker = threading.Thread(target=lambda: got.extend(tickets(queue.take(lambda spec: 4 if spec in known else 0))))
    taker.start()
    time.sleep(0.05)
    assert not got
    known.add(7)
    queue.look_again()
    taker.join(5)
    assert got == [1]


def test_crops_given_back_come_first_and_dropped_ones_never() -> None:
    queue = CropQueue()
    queue.put(crops(1, 2))
    queue.put(crops(2, 2))
    first = queue.take(lambda _: 3)
    queue.give_back(first)
    assert tickets(queue.take(lambda _: 3)) == [1, 1, 2]
    queue.put(crops(3, 2))
    dropped = queue.drop(lambda image: image.head.ticket == 2)
    assert [image.head.ticket for image in dropped] == [2]
    assert tickets(queue.take(lambda _: 3)) == [3, 3]


def test_a_full_queue_makes_its_senders_wait() -> None:
    queue = CropQueue(most_bytes=100)
    queue.put(crops(1, 3))  # 144 bytes: what is over the limit already keeps the next one out
    sender = threading.Thread(target=lambda: queue.put(crops(2, 1)))
    sender.start()
    sender.join(0.05)
    assert sender.is_alive()
    queue.take(lambda _: 2)
    sender.join(5)
    assert not sender.is_alive()
