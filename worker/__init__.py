"""Inference: Celery tasks that take chunks from the ledger, and the engine processes that read the images.

The Celery process itself imports no image or model code; the engines (``worker.engine``) do. Neither imports ``web``.
"""
