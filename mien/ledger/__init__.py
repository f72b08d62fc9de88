"""The ledger: the only writer of job, chunk and image state, one module per transition.

``submit`` writes the job; ``expand`` its images and chunks; ``lease`` gives chunks to workers; ``commit`` takes their
results; ``retry`` makes new chunks of failed images; ``purge`` cancels and deletes; ``sweep`` takes back what was lost.

Two rules keep it exact. Lock order: chunks by id, then the job, last, by a plain ``UPDATE``. And every change of an
image's outcome moves the job's counters in the same transaction, through :mod:`mien.ledger.counters`.
"""
