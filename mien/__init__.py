"""The domain of Mien: what a job is and where its truth is kept. No Flask, no torch here."""

__version__ = "0.1.0"
