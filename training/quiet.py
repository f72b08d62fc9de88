"""transformers without its progress bars and load reports, which say nothing to whoever runs a command of Mien."""

from __future__ import annotations


def quiet() -> None:
    """Once is enough; what goes wrong is still raised."""
    from transformers.utils import logging  # noqa: PLC0415 - slow to import

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
