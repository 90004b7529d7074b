"""What changed on the watched pages in a week.

For every page (source and address) the week's last snapshot is compared with the newest one before the week; both
were read by the same extractor, so a difference is the page's. The snapshots between and those of the flapping window
tell a real move from a value that goes back and forth. A page that was not seen this week (failed, blocked, denied,
stale) gives no row at all: that nothing is said about it is for the coverage section to say.

``KINDS`` and ``SEVERITIES`` and the rules behind severity and confidence are in ``workbench.insight.rules``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.insight.drafts import Draft
from workbench.insight.observations import PageHistory, page_histories
from workbench.insight.page_changes import compare_page
from workbench.insight.rules import KINDS, SEVERITIES, ChangeKind, Severity, cap, confidence_of
from workbench.insight.spans import Span, diff_spans
from workbench.store.tables import TABLES
from workbench.weeks import Week
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.store.lake import Lake

__all__ = [
    "KINDS",
    "SEVERITIES",
    "ChangeKind",
    "ClaimChange",
    "Severity",
    "changes_of_week",
    "claim_changes",
    "find_changes",
]


def find_changes(lake: Lake, workspace: Workspace, week: Week) -> pl.DataFrame:
    """The changes of ``week``, with the schema of the lake's changes table; the most severe first.

    Raises LakeError when two snapshots to compare were read by different extractors.
    """
    return changes_of_week(
        lake.read("pages"),
        offers=lake.read("offers"),
        plans=lake.read("plans"),
        claims=lake.read("claims"),
        workspace=workspace,
        week=week,
    )


def changes_of_week(
    pages: pl.DataFrame,
    *,
    offers: pl.DataFrame,
    plans: pl.DataFrame,
    claims: pl.DataFrame,
    workspace: Workspace,
    week: Week,
) -> pl.DataFrame:
    """``find_changes`` on frames with the schemas of ``store.tables``; the order of their rows does not matter.

    Rows of companies that the workspace does not name are left out. In a row of kind plan_features, plan_removed,
    plan_added or of a flapping list, ``before`` and ``after`` hold one line for each feature or item; a tier's first
    line is its price. Raises LakeError as ``find_changes`` does.
    """
    known = [company.id for company in workspace.companies]
    products = {ref.source.id: ref.source.product for ref in workspace.sources()}
    histories = page_histories(
        pages.filter(pl.col("company_id").is_in(known)),
        offers=offers,
        plans=plans,
        claims=claims,
        week=week,
        window_days=workspace.thresholds.flap_window_days,
    )
    watched = set(pages.filter(pl.col("fetched_at") < week.start)["source_id"])
    rows = []
    for history in histories:
        source_id = history.last.source_id
        drafts = compare_page(
            history,
            week,
            thresholds=workspace.thresholds,
            product=products.get(source_id),
            watched=source_id in watched,
        )
        rows += _rows(drafts, history, week, own=history.last.company_id == workspace.company.id)
    frame = pl.DataFrame(rows, schema=TABLES["changes"].schema, orient="row")
    return _sorted(frame, known)


def _rows(drafts: Iterable[Draft], history: PageHistory, week: Week, *, own: bool) -> list[dict[str, Any]]:
    last = history.last
    counts: Counter[str] = Counter()
    rows = []
    for draft in drafts:
        severity = cap(draft.severity, "low") if own else draft.severity
        parts = (
            str(week),
            last.source_id,
            last.url,
            draft.kind,
            draft.subject,
            draft.before or "",
            draft.after or "",
        )
        identity = "\x1f".join(parts)
        counts[identity] += 1
        # Two equal lines of a page that both went are two changes; their order makes them differ.
        identity += f"\x1f{counts[identity]}"
        rows.append(
            {
                "change_id": hashlib.sha256(identity.encode()).hexdigest(),
                "week": str(week),
                "company_id": last.company_id,
                "source_id": last.source_id,
                "url": last.url,
                "kind": draft.kind,
                "subject": draft.subject,
                "before": draft.before,
                "after": draft.after,
                "amount_before": draft.amount_before,
                "amount_after": draft.amount_after,
                "currency": draft.currency,
                "percent": None if draft.percent is None else round(draft.percent, 4),
                "severity": severity,
                "confidence": confidence_of(draft.reasons),
                "why": _why(draft, own=own and severity != draft.severity),
                "observed_at": draft.snapshot_after.fetched_at,
                "snapshot_before": draft.snapshot_before.snapshot_id if draft.snapshot_before else None,
                "snapshot_after": draft.snapshot_after.snapshot_id,
            }
        )
    return rows


def _why(draft: Draft, *, own: bool) -> str:
    severity = [draft.weight, *draft.notes, *(["your own company"] if own else [])]
    sure = [reason.words for reason in draft.reasons]
    return " ".join(f"{_sentence('; '.join(part))}" for part in (severity, sure) if part)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _sorted(frame: pl.DataFrame, companies: list[str]) -> pl.DataFrame:
    """Most severe first, then in the workspace's order of companies; no two rows tie."""

    def rank(column: str, order: Iterable[str]) -> pl.Expr:
        ranks = {value: place for place, value in enumerate(order)}
        return pl.col(column).replace_strict(ranks, default=len(ranks), return_dtype=pl.Int32)

    return frame.sort(
        rank("severity", SEVERITIES),
        rank("company_id", companies),
        "source_id",
        "url",
        rank("kind", KINDS),
        "subject",
        "change_id",
    )


@dataclass(frozen=True)
class ClaimChange:
    """A claim that came, went or was reworded, with what exactly differs.

    ``spans`` read in order are both wordings at once: ``equal`` and ``delete`` give the old one, ``equal`` and
    ``insert`` the new one.
    """

    change_id: str
    company_id: str
    source_id: str
    url: str
    kind: str
    before: str | None
    after: str | None
    spans: tuple[Span, ...]
    severity: str
    confidence: float
    snapshot_before: str | None
    snapshot_after: str | None


def claim_changes(changes: pl.DataFrame) -> tuple[ClaimChange, ...]:
    """The claim changes among ``changes``, in their order, word by word."""
    chosen = changes.filter(pl.col("kind").is_in(["claim_added", "claim_removed", "claim_reworded"]))
    return tuple(
        ClaimChange(
            change_id=row["change_id"],
            company_id=row["company_id"],
            source_id=row["source_id"],
            url=row["url"],
            kind=row["kind"],
            before=row["before"],
            after=row["after"],
            spans=diff_spans(row["before"] or "", row["after"] or ""),
            severity=row["severity"],
            confidence=row["confidence"],
            snapshot_before=row["snapshot_before"],
            snapshot_after=row["snapshot_after"],
        )
        for row in chosen.to_dicts()
    )
