"""Parts of :class:`mien.client.Client`: two jobs over the same images, compared."""

from __future__ import annotations

from collections.abc import Iterator

from mien import wire_compare as wire
from mien.transport import Transport, path_part


class ClientCompare(Transport):
    """What a client can ask about two jobs."""

    def compare(self, job_a: str, job_b: str) -> wire.Comparison:
        """Agreement, confusion and, where people have checked, who is right.

        Raises:
            InvalidRequestError: ``same_job``.
            ConflictError: ``job_not_finished``.
            UnprocessableError: ``nothing_to_compare``.
        """
        return self._read(wire.Comparison, self._ask("GET", f"/jobs/{path_part(job_a)}/compare/{path_part(job_b)}"))

    def differences(self, job_a: str, job_b: str, *, page_size: int = 100) -> Iterator[wire.Difference]:
        """The images that the jobs say different things about, in path order, page by page."""
        address = f"/jobs/{path_part(job_a)}/compare/{path_part(job_b)}/differences"
        for page in self._pages(wire.DifferencePage, address, {"limit": page_size}):
            yield from page.items
