"""The domain of Mien: what a job is and where its truth is kept.

No protocol is answered and no network runs here: neither Flask nor torch comes in, and none of ``web``, ``worker``,
``training`` and ``cli``. Only :mod:`mien.ledger` writes the state of jobs, chunks and images. docs/architecture.md has
every module by its subject.
"""

__version__ = "0.1.0"
