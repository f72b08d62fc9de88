"""The ``mien`` command: one module per group, heavy imports only inside commands.

What a command does stands elsewhere: on jobs, in the API, which it asks through :mod:`mien.client`; else in :mod:`mien`
or :mod:`training`. Here stands how it is asked for and what is printed.
"""
