"""Making and judging models: data, training, evaluation, calibration and packaging (needs the ``training`` extra)."""
