"""Why a page could not be had. These never leave the collector: each becomes a status and a note in the archive.

PageError                failed
├── AddressError         failed: not http(s), not a public host, or not an address at all
├── BodyError            failed: too large, or not what its Content-Encoding says
├── RedirectError        failed: a loop, too many hops, nowhere to go
├── TransientError       failed after the last retry: 429, 5xx, a broken connection, a timeout
├── BlockedError         blocked: the site refuses (401, 403, 451) or answers machines with a challenge
└── RobotsDeniedError    robots-denied
"""

from __future__ import annotations

from workbench.errors import CollectError
from workbench.store.archive import SourceStatus

__all__ = [
    "AddressError",
    "BlockedError",
    "BodyError",
    "PageError",
    "RedirectError",
    "RobotsDeniedError",
    "TransientError",
]


class PageError(CollectError):
    """One page could not be had. ``http_status`` is the last answer's, None when there was no answer."""

    status: SourceStatus = "failed"

    def __init__(self, message: str, *, http_status: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status


class AddressError(PageError):
    """The address is not http(s), cannot be read, or leads to a host that is not public."""


class BodyError(PageError):
    """The body is larger than allowed, or is not what its Content-Encoding says."""


class RedirectError(PageError):
    """The redirects lead in a circle, nowhere, or too far."""


class TransientError(PageError):
    """May work on another try. ``retry_after_s`` is what the server asked for, in seconds."""

    def __init__(self, message: str, *, http_status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, http_status=http_status)
        self.retry_after_s = retry_after_s


class BlockedError(PageError):
    """The site refuses, or answers machines with a challenge page."""

    status = "blocked"


class RobotsDeniedError(PageError):
    """robots.txt says no, or cannot be read, which means no as well (RFC 9309, 2.3.1.4)."""

    status = "robots-denied"
