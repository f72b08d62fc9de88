"""Parts of :class:`mien.client.Client`: single images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from mien import wire
from mien.transport import Transport

PREDICT_TIMEOUT_S = 90.0
"""Longer than any front end lets a single image take (MIEN_PREDICT_TIMEOUT_S)."""


class ClientParts(Transport):
    """What a client can do besides submitting and watching jobs."""

    def predict(
        self,
        image: bytes | str | os.PathLike[str],
        *,
        model: str | None = None,
        faces: Literal["detect", "whole"] = "detect",
        precision: str | None = None,
        detect_size: int | None = None,
        min_face_score: float | None = None,
        min_face: int | None = None,
    ) -> wire.Prediction:
        """Classify one image at once: its bytes, or the path of a file here. Nothing of it is kept by the server.

        Raises:
            UnprocessableError: the image cannot be read; ``code`` is that of a failed image of a job.
            TooLargeError: the server takes no image of this size.
            UnavailableError, DeadlineError: no worker answers now; try again later.
        """
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        query = {
            "model": model,
            "faces": faces,
            "precision": precision,
            "detect_size": detect_size,
            "min_face_score": min_face_score,
            "min_face": min_face,
        }
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._ask("POST", "/predict", params=query, data=data, headers=headers, timeout_s=PREDICT_TIMEOUT_S)
        return self._read(wire.Prediction, answer)
