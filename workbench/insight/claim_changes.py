"""Claims of a page: headings and feature statements that came, went or were reworded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.insight import rules
from workbench.insight.drafts import Draft, Followed, draft_flapping, find_shown
from workbench.insight.observations import ClaimSeen
from workbench.insight.rules import ChangeKind, Severity
from workbench.insight.series import Flap, Move
from workbench.insight.spans import fold

__all__ = ["Told", "compare_claims"]

_REWRITTEN_SHARE, _REWRITTEN_LEAST = 0.6, 10
"""A page with this share and this number of its claims changed was rewritten."""


_CELLS = " | "
"""Between the cells of a table's row, as ``extract`` writes them."""


@dataclass(frozen=True)
class Told:
    """What a page's product and tier changes already tell; claims that only repeat it are notes.

    ``priced``: the numbers of its price changes; ``lines``: folded names and feature lines that came or went;
    ``ratios``: new price / old price of each price change; ``tiers``: whether any plan tier changed.
    """

    priced: frozenset[str] = frozenset()
    lines: frozenset[str] = frozenset()
    ratios: tuple[float, ...] = ()
    tiers: bool = False


def compare_claims(followed: Followed[ClaimSeen], told: Told) -> Iterator[Draft]:
    """All changes of a page's claims. Moves on the page, case and blanks are no change."""
    moves, notes = find_shown(followed, lambda claim: claim.text, "claim")
    reworded = [
        (track, found)
        for track in followed.tracks
        if (found := followed.move(track, lambda claim: fold(claim.text))) is not None
    ]
    counted = sum(1 for t in followed.tracks if t.seen[-1] is not None or t.seen[followed.baseline] is not None)
    changed = len(moves) + sum(1 for _, found in reworded if isinstance(found, Move))
    rewritten = changed >= _REWRITTEN_LEAST and changed > _REWRITTEN_SHARE * counted
    doubts = (rules.REWRITTEN,) if rewritten else ()
    page_kind = followed.snapshots[-1].kind

    def weigh(kind: ChangeKind, before: str | None, after: str | None, claim: ClaimSeen) -> tuple[Severity, str]:
        texts = [text for text in (before, after) if text is not None]
        if all(fold(text) in told.lines for text in texts):
            return "note", "already told by a product or tier of this page"
        if told.tiers and page_kind == "pricing" and all(_CELLS in text for text in texts):
            return "note", "a row of the tiers' table; the tiers tell it"
        level = (claim.level or 6) if claim.kind == "heading" else None
        return rules.claim_severity(
            kind,
            page_kind,
            before=before or "",
            after=after or "",
            level=level,
            priced=told.priced,
            ratios=told.ratios,
        )

    for track, move in moves:
        claim = track.newest
        kind: ChangeKind = "claim_added" if move.after else "claim_removed"
        before, after = (None, claim.text) if move.after else (claim.text, None)
        severity, weight = weigh(kind, before, after, claim)
        doubt = followed.doubt(move)
        reasons = [rules.NO_SIMILAR, rules.confirmation(move.confirmed), *followed.shared]
        if doubt is None:
            reasons += doubts
        else:
            severity, reasons = rules.cap(severity, "low"), [*reasons, doubt]
        yield Draft(
            kind,
            claim.text,
            before,
            after,
            severity,
            weight,
            tuple(reasons),
            move.snapshot_before,
            move.snapshot_after,
        )
    yield from notes
    for track, found in reworded:
        texts = {fold(claim.text): claim.text for claim in track.seen if claim is not None}
        if isinstance(found, Flap):
            yield draft_flapping(texts[found.runs[-1]], found, texts.__getitem__, "the wording")
            continue
        before, after = texts[found.before], texts[found.after]
        severity, weight = weigh("claim_reworded", before, after, track.newest)
        reasons = [*followed.reasons(track, found), *doubts]
        yield Draft(
            "claim_reworded",
            after,
            before,
            after,
            severity,
            weight,
            tuple(reasons),
            found.snapshot_before,
            found.snapshot_after,
        )
