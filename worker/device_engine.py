"""The engine of one device: takes crops from decoding processes, classifies them in batches, answers.

The supervisor starts it as ``python -P -m worker.device_engine FD CONFIG``, one per GPU, with one end of a socket pair
and a listening socket that the decoding processes connect to. It opens no file but model folders. Before a batch
begins it says which images are in it: if it ends in the middle, those are suspects, and no others.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from mien.errors import ModelError
from worker.device_batches import BatchSize, Lane, free_memory, is_out_of_memory, largest_batch
from worker.device_link import SOCKET_BUFFER, answer_frame, receive_crops
from worker.device_queue import Crop, CropQueue, DeviceImage, Sender
from worker.engine_life import begin_life
from worker.faults import commit_device_fault, read_faults
from worker.messages import MAX_MESSAGE_BYTES, EngineSpec, pack, unpack, unpack_spec
from worker.probabilities import Floats, check_labels, one_line, softmax
from worker.specs import model_of
from worker.torch_classifier import TorchNetwork

LANES = 2
"""Batches on the device at once: one computes, the next is filled and copied."""
NETWORKS_KEPT = 2
ANSWER_TIMEOUT_S = 5.0
FIRST_LIMIT = 8
"""Crops taken for a classifier that is not loaded yet."""


@dataclass(frozen=True)
class DeviceConfig:
    """What the supervisor fixes for the life of a device engine."""

    parent: int
    device: str
    """``cuda``: the one GPU that this process sees; ``cpu``: the CPU in its place."""
    listener: int
    """Descriptor of the listening socket."""
    batch: int
    """Largest batch; 0: find out."""
    compiled: bool
    """Whether networks are compiled for the fixed shapes."""


@dataclass(eq=False)
class Loaded:
    """A network on the device, with its batch size and lanes."""

    network: TorchNetwork
    size: BatchSize
    lanes: queue.SimpleQueue[Lane]


@dataclass(eq=False)
class Batch:
    """A batch on its way; ``error``: what its launch raised."""

    loaded: Loaded
    lane: Lane
    crops: list[Crop]
    shape: int
    error: Exception | None = None

    @property
    def tickets(self) -> list[int]:
        """The images in it."""
        return list(dict.fromkeys(crop.image.head.ticket for crop in self.crops))


class Decoder:
    """The connection of one decoding process."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        link.settimeout(ANSWER_TIMEOUT_S)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        self._lock = threading.Lock()

    def answer(self, frames: Iterable[bytes]) -> None:
        """Send answers; a process that does not take them in time, or is gone, loses its connection."""
        with self._lock:
            try:
                self.link.sendall(b"".join(frames))
            except OSError:
                self.close()

    def close(self) -> None:
        """End the connection: its reader notices."""
        with contextlib.suppress(OSError):  # it is closed already
            self.link.shutdown(socket.SHUT_RDWR)


class DeviceEngine:
    """What runs on one device. ``say`` sends a message to the supervisor; thread-safe."""

    def __init__(self, config: DeviceConfig, say: Callable[[bytes], None]) -> None:
        self._config = config
        self._say = say
        self._faults = read_faults()
        self._specs: dict[int, EngineSpec] = {}
        self._loaded: OrderedDict[tuple[str, str, str], Loaded] = OrderedDict()
        self._crops = CropQueue()
        self._flying: list[Batch] = []
        self._lock = threading.Lock()
        self._room = threading.Semaphore(LANES)
        self._launched: queue.SimpleQueue[Batch] = queue.SimpleQueue()

    def learn(self, number: int, spec: EngineSpec) -> None:
        """What ``number`` stands for from now on."""
        self._specs[number] = spec
        self._crops.look_again()

    def serve(self, link: socket.socket) -> None:
        """Take crops from one decoding process until it ends."""
        decoder = Decoder(link)
        images: dict[int, DeviceImage] = {}
        try:
            while True:
                head, pixels = receive_crops(link)
                image = images.setdefault(head.ticket, DeviceImage(decoder, head))
                if head.first + head.count == head.total:
                    del images[head.ticket]
                self._crops.put([Crop(image, head.first + i, pixels[i]) for i in range(head.count)])
        except (EOFError, OSError, ValueError, UnicodeDecodeError):
            decoder.close()
            self._crops.drop(lambda image: image.sender is decoder)
        finally:
            link.close()

    def run(self) -> None:
        """Classify what comes, for ever."""
        threading.Thread(target=_or_exit(self._collect), name="collect", daemon=True).start()
        while True:
            self._room.acquire()
            crops = self._crops.take(self._limit)
            loaded = self._load(crops)
            if loaded is None:
                self._room.release()
                continue
            alone = crops[0].image.head.alone
            if alone:  # nothing else is on the device with a suspect, before and after
                self._wait_until_empty(held=1)
            self._launch(loaded, crops)
            if alone:
                self._wait_until_empty()

    # the loop's own thread --------------------------------------------------------------------------------------------

    def _limit(self, number: int) -> int:
        if number not in self._specs:
            return 0
        loaded = self._loaded.get(_key(self._specs[number]))
        return FIRST_LIMIT if loaded is None else loaded.size.now

    def _load(self, crops: list[Crop]) -> Loaded | None:
        """The network for these crops, loaded if need be; None if it cannot be used, which is told."""
        number = crops[0].image.head.spec
        key = _key(self._specs[number])
        if key not in self._loaded:
            self._say(pack("loading", number=number))
            try:
                if len(self._loaded) >= NETWORKS_KEPT:
                    self._wait_until_empty(held=1)
                    _, old = self._loaded.popitem(last=False)
                    free_memory(old.network)
                self._loaded[key] = load(self._specs[number], self._config, self._say)
            except ModelError as error:
                self._refuse(number, crops, error)
                return None
            self._say(pack("loaded", number=number))
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def _launch(self, loaded: Loaded, crops: list[Crop]) -> None:
        spec = loaded.network.model.input
        wrong = [crop for crop in crops if crop.pixels.shape != (spec.height, spec.width, 3)]
        for crop in wrong:
            crop.image.sender.close()
        crops = [crop for crop in crops if crop not in wrong]
        most = loaded.size.now  # less than was taken for a network that was not loaded, or was halved meanwhile
        if len(crops) > most:
            self._crops.give_back(crops[most:])
            crops = crops[:most]
        if not crops:
            self._room.release()
            return
        batch = Batch(loaded, loaded.lanes.get(), crops, loaded.size.shape_for(len(crops)))
        with self._lock:
            self._flying.append(batch)
            self._tell()
        try:
            for crop in crops if self._faults else ():
                commit_device_fault(crop.image.head.fault, batch.shape)
            batch.lane.launch([crop.pixels for crop in crops], batch.shape)
        except Exception as error:
            batch.error = error
        self._launched.put(batch)

    def _wait_until_empty(self, held: int = 0) -> None:
        """Wait until no batch is on the device; ``held``: what the caller itself has of the room."""
        for _ in range(LANES - held):
            self._room.acquire()
        for _ in range(LANES - held):
            self._room.release()

    def _refuse(self, number: int, crops: list[Crop], error: ModelError) -> None:
        """The supervisor fails the spec's requests; their crops are dropped."""
        self._say(pack("unusable", number=number, code=error.code, detail=error.detail))
        dropped = [*(crop.image for crop in crops), *self._crops.drop(lambda image: image.head.spec == number)]
        for image in dict.fromkeys(dropped):
            image.sender.answer([answer_frame(image.head.ticket, None, 0.0)])

    # the collector's thread -------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        while True:
            batch = self._launched.get()
            try:
                if batch.error is not None:
                    raise batch.error
                logits, seconds = batch.lane.collect()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._too_large(batch)
            else:
                batch.loaded.size.went_well(batch.shape)
                self._answer(batch, softmax(logits), seconds)
            batch.loaded.lanes.put(batch.lane)
            with self._lock:
                self._flying.remove(batch)
                self._tell()
            self._room.release()

    def _too_large(self, batch: Batch) -> None:
        """The device ran out of memory: the crops wait again, for smaller batches."""
        network = batch.loaded.network
        free_memory(network)
        if batch.loaded.size.too_large(batch.shape):
            self._crops.give_back(batch.crops)
            return
        name, device = network.model.name, self._config.device
        detail = f"The device ({device}) has not enough memory for a single face with the model {name!r}."
        self._refuse(batch.crops[0].image.head.spec, batch.crops, ModelError(detail, code="device_memory"))

    def _answer(self, batch: Batch, probabilities: Floats, seconds: float) -> None:
        if len(probabilities) != len(batch.crops):
            raise AssertionError(f"{len(batch.crops)} crops went in and {len(probabilities)} answers came out")
        share = seconds / len(batch.crops)
        frames: dict[Sender, list[bytes]] = {}
        for crop, row in zip(batch.crops, probabilities, strict=True):
            image = crop.image
            image.rows[crop.index] = row
            image.seconds += share
            image.left -= 1
            if not image.left:
                frame = answer_frame(image.head.ticket, _stacked(image), image.seconds)
                frames.setdefault(image.sender, []).append(frame)
        for sender, answers in frames.items():
            sender.answer(answers)

    def _tell(self) -> None:
        """Say which images are on the device now; under the lock, so that the supervisor hears it in order."""
        self._say(pack("batch", tickets=[ticket for batch in self._flying for ticket in batch.tickets]))


def load(spec: EngineSpec, config: DeviceConfig, say: Callable[[bytes], None]) -> Loaded:
    """A spec's network on the device, with its batch size found out and its shapes compiled and warmed up.

    Raises:
        ModelError: the model cannot be used.
    """

    def sign() -> None:
        say(pack("sign"))

    model = model_of(spec)
    network = TorchNetwork(model, config.device, spec.precision)
    sign()
    check_labels(model, lambda crops: softmax(network.classify(crops)))
    size = BatchSize(config.batch or largest_batch(network, sign))
    if config.compiled:
        try:
            network.compile(size.shapes, sign)
        except Exception as error:  # no C compiler, an operator without a kernel: it runs as well without, only slower
            say(pack("note", text=f"{model.name} runs uncompiled: {type(error).__name__}: {one_line(error)}"))
    lanes: queue.SimpleQueue[Lane] = queue.SimpleQueue()
    for _ in range(LANES):
        lanes.put(Lane(network, size.most))
    compiled = f", compiled for {network.compiled_shapes}" if network.compiled_shapes else ""
    say(pack("note", text=f"{model.name} in {spec.precision}: batches of up to {size.most}{compiled}"))
    return Loaded(network, size, lanes)


def _stacked(image: DeviceImage) -> Floats:
    return np.stack([row for row in image.rows if row is not None])


def _key(spec: EngineSpec) -> tuple[str, str, str]:
    """What tells networks apart."""
    return (spec.model_folder, spec.model_revision, spec.precision)


def _or_exit(work: Callable[[], None]) -> Callable[[], None]:
    """``work``, whose failure ends the process: nothing may go on without it."""

    def run() -> None:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    return run


def _accept(listener: socket.socket, engine: DeviceEngine) -> None:
    while True:
        link, _ = listener.accept()
        threading.Thread(target=engine.serve, args=(link,), name="decoder", daemon=True).start()


def _listen(pipe: Connection, engine: DeviceEngine) -> None:
    try:
        while True:
            content = unpack(pipe.recv_bytes(MAX_MESSAGE_BYTES))
            if content["kind"] == "spec":
                engine.learn(content["number"], unpack_spec(content))
    except (EOFError, OSError):
        os._exit(0)  # the supervisor closed the pipe, or is gone


def serve(pipe: Connection, config: DeviceConfig) -> None:
    """The device engine's life: until the pipe closes."""
    speaking = threading.Lock()

    def say(message: bytes) -> None:
        with speaking:
            pipe.send_bytes(message)

    engine = DeviceEngine(config, say)
    threading.Thread(target=_or_exit(lambda: _listen(pipe, engine)), name="pipe", daemon=True).start()
    start_device(config.device)
    listener = socket.socket(fileno=config.listener)
    threading.Thread(target=_or_exit(lambda: _accept(listener, engine)), name="accept", daemon=True).start()
    say(pack("ready"))
    engine.run()


def start_device(device: str) -> None:
    """Import what a network needs, and put something on the device.

    Raises:
        SystemExit: there is no such device.
    """
    # heavy and native: after the pipe's thread, so that a parent that dies is noticed
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device; set MIEN_DEVICE=cpu, or see `mien doctor`")
    torch.zeros(1, device=device)
    from transformers import AutoModelForImageClassification  # noqa: F401, PLC0415


def main(arguments: list[str]) -> None:
    """Entry of the device engine: the descriptor of its pipe, and its configuration as JSON."""
    config = DeviceConfig(**json.loads(arguments[1]))
    begin_life(config.parent)
    pipe = Connection(int(arguments[0]))
    try:
        serve(pipe, config)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except SystemExit as reason:  # a sentence for the operator
        sys.stderr.write(f"{reason}\n")
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
