"""Frames between decoding processes and a device engine: whole or not at all."""

from __future__ import annotations

import socket
import struct
import threading

import numpy as np
import pytest

from worker.device_link import (
    CROPS_PER_FRAME,
    SEND_WAIT_S,
    answer_frame,
    crop_frames,
    receive_answer,
    receive_crops,
    send_parts,
)


def test_crops_arrive_as_they_were_sent_in_bounded_frames() -> None:
    dice = np.random.default_rng(0)
    crops = [dice.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(CROPS_PER_FRAME + 3)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(SEND_WAIT_S)

        def send() -> None:
            for parts in crop_frames(3, 1 << 40, crops, urgent=True, alone=False, fault="crash"):
                send_parts(ours, parts, lambda: None)

        sender = threading.Thread(target=send)
        sender.start()
        first, some = receive_crops(theirs)
        second, rest = receive_crops(theirs)
        sender.join()
    assert (first.spec, first.ticket, first.total, first.first, first.count) == (3, 1 << 40, 35, 0, 32)
    assert (second.first, second.count, second.urgent, second.alone, second.fault) == (32, 3, True, False, "crash")
    np.testing.assert_array_equal(np.concatenate([some, rest]), np.stack(crops))


def test_a_receiver_that_is_behind_is_waited_for_with_signs() -> None:
    ours, theirs = socket.socketpair()
    signs: list[int] = []
    got: list[int] = []
    big = np.zeros((800, 800, 3), np.uint8)
    with ours, theirs:
        ours.settimeout(0.05)
        receiver = threading.Thread(target=lambda: got.append(receive_crops(theirs)[1].size))

        def sign() -> None:
            signs.append(1)
            if len(signs) == 2:
                receiver.start()

        for parts in crop_frames(0, 1, [big], urgent=False, alone=False, fault=""):
            send_parts(ours, parts, sign)
        receiver.join()
    assert len(signs) >= 2
    assert got == [big.size]


def test_answers_and_drops() -> None:
    rows = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(answer_frame(5, rows, 0.125) + answer_frame(6, None, 0.0))
        answer, dropped = receive_answer(theirs), receive_answer(theirs)
    assert (answer.ticket, answer.seconds) == (5, 0.125)
    np.testing.assert_array_equal(answer.rows, rows)
    assert (dropped.ticket, dropped.rows) == (6, None)


def test_a_sender_that_dies_in_the_middle_leaves_nothing() -> None:
    ours, theirs = socket.socketpair()
    (parts,) = crop_frames(0, 1, [np.zeros((8, 8, 3), np.uint8)], urgent=False, alone=False, fault="")
    with theirs:
        ours.sendall(parts[0])
        ours.sendall(parts[1][:100])
        ours.close()
        with pytest.raises(EOFError):
            receive_crops(theirs)


@pytest.mark.parametrize(("count", "height"), [(0, 8), (33, 8), (1, 0), (1, 5000)])
def test_what_is_no_frame_is_refused(count: int, height: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(struct.pack("<IQIIIHHB16s", 0, 1, 64, 0, count, height, 8, 0, b""))
        with pytest.raises(ValueError, match="not a frame"):
            receive_crops(theirs)
