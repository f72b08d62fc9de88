"""Stands in for ONNX Runtime on a bare machine: sessions can be opened, so that engines start, but not run."""

from __future__ import annotations

from typing import Any


class GraphOptimizationLevel:
    """As ONNX Runtime names it."""

    ORT_ENABLE_ALL = 99


class SessionOptions:
    """Takes every option."""

    def add_session_config_entry(self, *_: Any) -> None:
        """Takes every entry."""


class InferenceSession:
    """Runs nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def run(self, *_: Any) -> Any:
        """Says what is missing."""
        raise RuntimeError("ONNX Runtime is not installed here: faces cannot be searched, only whole images classified")

    def get_inputs(self) -> list[Any]:
        """None are known."""
        return []

    get_outputs = get_inputs


def set_default_logger_severity(_: int) -> None:
    """Nothing is logged."""
