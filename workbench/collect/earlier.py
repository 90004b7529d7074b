"""What the archive has of an address already, and whether an answer says anything new."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from workbench.collect.http import Response, Validators
from workbench.store.archive import Entry

__all__ = ["Earlier", "earlier_by_url"]


@dataclass(frozen=True)
class Earlier:
    """The newest snapshot of an address, and the one that holds its payload (the same unless it was a revisit)."""

    newest: Entry
    original: Entry

    @property
    def http_status(self) -> int | None:
        """The status the page had: a 304 stands for the one of its original."""
        return self.original.http_status if self.newest.http_status == 304 else self.newest.http_status

    @property
    def _final_url(self) -> str:
        return self.newest.final_url or self.newest.url

    @property
    def validators(self) -> Validators | None:
        """What a conditional GET asks with; None when the server gave nothing to ask with, or the page was gone."""
        etag, last_modified = self.newest.etag, self.newest.last_modified
        if self.http_status not in (200, 203) or not (etag or last_modified):
            return None
        return Validators(self._final_url, etag, last_modified)

    def answers(self, response: Response) -> bool:
        """Whether a 304 answers a question that was asked: validators went to exactly that address."""
        return bool(self.validators and self.validators.headers_for(response.url))

    def equals(self, response: Response) -> bool:
        """Whether a revisit record would say all that ``response`` says.

        The type counts because it carries the charset: the same bytes under another charset are another text.
        """
        return (
            self.http_status == response.http_status
            and self.original.payload_sha256 == sha256(response.payload).hexdigest()
            and self.newest.content_type == response.header("content-type")
            and self._final_url == response.url
        )


def earlier_by_url(entries: Iterable[Entry]) -> dict[str, Earlier]:
    """The newest snapshot of each address, from entries in order of time.

    An address whose newest snapshot has lost its original (a WARC file is missing) is left out, and so is fetched in
    full.
    """
    snapshots = {entry.snapshot_id: entry for entry in entries if entry.snapshot_id is not None}
    found: dict[str, Earlier] = {}
    for entry in snapshots.values():
        original = snapshots.get(entry.refers_to) if entry.refers_to else entry
        if original is None:
            found.pop(entry.url, None)
        else:
            found[entry.url] = Earlier(entry, original)
    return found
