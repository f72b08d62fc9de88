"""The ``mien`` command: one module per group, heavy imports only inside commands."""
