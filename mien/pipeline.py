"""What identifies the way from a file to its faces: part of every fingerprint and of every result's provenance.

Importable without numpy. Raise ``PIPELINE_VERSION`` when a change moves any box or probability by more than rounding.
"""

from __future__ import annotations

PIPELINE_VERSION = 2
DECODER = "simplejpeg+pillow/1"
"""How bytes become pixels; see mien/images.py."""
DETECTOR = "yunet_2023mar"
DETECTOR_NMS = 0.3
"""Overlap (intersection over union) above which the weaker of two boxes is dropped."""
DEFAULT_DETECT_SIZE = 640
"""Longer side at which faces are looked for, in pixels; docs/detection.md says how it was chosen."""
DEFAULT_MIN_FACE_SCORE = 0.7
DEFAULT_MIN_FACE = 0
DEFAULT_MAX_PIXELS = 200_000_000
DEFAULT_IMAGE_TIMEOUT_S = 60.0
DEFAULT_ENGINE_MAX_RSS_BYTES = 2 << 30
