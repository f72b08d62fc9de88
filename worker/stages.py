"""The stages an engine takes images through: read, decode, find faces, crop, classify."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from mien.faults import fault_point
from mien.stage_times import Clock, add_lap
from worker.classifier import Classifier, crops_at_once, open_classifier, passes
from worker.messages import EngineSpec, ImageResult, ImageTask
from worker.preparing import Prepared, Preparer
from worker.probabilities import Floats
from worker.specs import model_of

CLASSIFIERS_KEPT = 2


class Stages:
    """Detector and classifiers of one engine process, and the way of an image through them.

    ``device`` is where classifiers run, ``cpu`` or one GPU (``cuda:N``); ``batch`` is how many crops go through a
    network at once at most; ``sign`` is called between steps, to show that the engine is alive.
    """

    def __init__(self, *, device: str, batch: int, sign: Callable[[], None]) -> None:
        self._device = device
        self._batch = batch
        self._sign = sign
        self._preparer = Preparer()
        self._classifiers: OrderedDict[tuple[str, str, str], Classifier] = OrderedDict()

    def has_classifier(self, spec: EngineSpec) -> bool:
        """Whether the classifier of ``spec`` is loaded."""
        return _classifier_key(spec) in self._classifiers

    def classifier(self, spec: EngineSpec) -> Classifier:
        """The classifier of ``spec``, loaded if need be; the two used last are kept.

        Raises:
            ModelError: the folder is defective, is not the revision asked for, or cannot run as asked.
        """
        key = _classifier_key(spec)
        if key not in self._classifiers:
            model = model_of(spec)
            while len(self._classifiers) >= CLASSIFIERS_KEPT:
                self._classifiers.popitem(last=False)
            self._classifiers[key] = open_classifier(model, self._device, spec.precision)
        self._classifiers.move_to_end(key)
        return self._classifiers[key]

    def images_at_once(self, spec: EngineSpec) -> int:
        """How many images to take up together: as many as their crops go through the network at once, if each has one.
        With slow models that is few, so that results come often and engines that end together leave no core idle."""
        if not self.has_classifier(spec):
            return 1
        return crops_at_once(self.classifier(spec).model.input, self._batch)

    def run(self, spec: EngineSpec, tasks: Sequence[ImageTask], begin: Callable[[int], None]) -> list[ImageResult]:
        """Classify images, in order. ``begin`` is called with each key before the image's first byte is read.

        What goes wrong with one image is that image's result; ModelError and whatever else comes out of the networks
        is raised.
        """
        classifier = self.classifier(spec)
        images = []
        for task in tasks:
            begin(task.key)
            images.append(self._preparer.prepare(task, spec, classifier.model))
        fault_point("after_decode")
        probabilities = self._classify(images, classifier)
        fault_point("after_classify")
        return [image.result(rows) for image, rows in zip(images, probabilities, strict=True)]

    def _classify(self, images: Sequence[Prepared], classifier: Classifier) -> list[list[Floats]]:
        """The probabilities of each image's faces (faces x labels); crops of several images share a batch."""
        crops = [crop for image in images for crop in image.crops]
        rows: list[Floats] = []
        clock = Clock()
        for part in passes(crops, classifier.model.input, self._batch):
            self._sign()
            rows.extend(classifier.classify(part))
        worked, waited = (seconds / max(len(crops), 1) for seconds in clock.lap())
        if len(rows) != len(crops):
            raise AssertionError(f"{len(crops)} crops went in and {len(rows)} answers came out")
        answers: list[list[Floats]] = []
        for image in images:
            count = len(image.crops)
            answers.append(rows[:count])
            rows = rows[count:]
            add_lap(image.times, "classify", (worked * count, waited * count))
        return answers


def _classifier_key(spec: EngineSpec) -> tuple[str, str, str]:
    return (spec.model_folder, spec.model_revision, spec.precision)
