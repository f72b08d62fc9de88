"""How every ONNX Runtime session here is opened: one thread, no spinning, full optimisation."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

onnxruntime.set_default_logger_severity(3)  # errors only; its warnings are about graphs, not about images


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A session on the CPU with one thread: engines are as many as cores, so more threads would only be in the way."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # shapes vary from image to image: a pattern per shape and an arena that only grows would hold memory for nothing
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
