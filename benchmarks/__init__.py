"""Reproducible measurements; each module prints a table. Run one as ``python -m benchmarks.NAME --help``."""
