"""All changes of one page: its products, tiers and claims, and whether it is there at all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from workbench.insight import rules
from workbench.insight.claim_changes import Told, compare_claims
from workbench.insight.drafts import Draft, draft_flapping, follow
from workbench.insight.matching import match_claims, match_offers, match_plans
from workbench.insight.money import format_amount
from workbench.insight.observations import PageHistory, Snapshot
from workbench.insight.offer_changes import compare_offers
from workbench.insight.plan_changes import compare_plans
from workbench.insight.rules import ChangeKind
from workbench.insight.series import Flap, find_move
from workbench.insight.spans import fold, numbers_in
from workbench.weeks import Week
from workbench.workspace import Thresholds

__all__ = ["compare_page"]


def compare_page(
    history: PageHistory, week: Week, *, thresholds: Thresholds, product: str | None, watched: bool
) -> list[Draft]:
    """All changes of a page in ``week``.

    ``product`` is what the workspace says the page is about; ``watched``: another snapshot of the same source was
    seen before the week, so that an address never seen is new on the site and not merely new to us.
    """
    drafts = list(_compare_presence(history, week, thresholds=thresholds, watched=watched))
    readable = tuple(s for s in (*history.earlier, *history.inside) if s.readable)
    if not history.last.readable or readable[0].fetched_at >= week.start:
        return drafts
    offers = follow(readable, lambda s: s.offers, match_offers, week=week, thresholds=thresholds)
    plans = follow(readable, lambda s: s.plans, match_plans, week=week, thresholds=thresholds)
    claims = follow(readable, lambda s: s.claims, match_claims, week=week, thresholds=thresholds)
    told = [*compare_offers(offers, thresholds, product=product), *compare_plans(plans, thresholds)]
    page = Told(
        priced=_prices(told),
        lines=_lines(told),
        ratios=_ratios(told),
        tiers=any(draft.kind.startswith("plan_") for draft in told),
    )
    return [*drafts, *told, *compare_claims(claims, page)]


def _ratios(drafts: list[Draft]) -> tuple[float, ...]:
    """By what the page's prices were multiplied: a monthly rate moves with the price it is a share of."""
    pairs = ((d.amount_before, d.amount_after) for d in drafts if d.kind in ("price", "list_price", "plan_price"))
    return tuple(float(after / before) for before, after in pairs if before and after)


def _prices(drafts: list[Draft]) -> frozenset[str]:
    """The numbers of the amounts that changed, as a sentence would show them."""
    return frozenset(
        number
        for draft in drafts
        if draft.kind in ("price", "list_price", "currency", "plan_price")
        for amount in (draft.amount_before, draft.amount_after)
        for number in numbers_in(format_amount(amount, None))
    )


def _lines(drafts: list[Draft]) -> frozenset[str]:
    """Names and feature lines that came or went with products and tiers: pages show them as claims too."""
    kinds = (
        "offer_added",
        "offer_removed",
        "plan_added",
        "plan_removed",
        "plan_renamed",
        "plan_features",
        "flapping",
    )
    texts = (text for d in drafts if d.kind in kinds for text in (d.subject, d.before, d.after) if text)
    return frozenset(fold(line) for text in texts for line in text.split("\n"))


def _compare_presence(history: PageHistory, week: Week, *, thresholds: Thresholds, watched: bool) -> Iterator[Draft]:
    """The page itself: gone, back, first seen."""
    last = history.last
    subject = next((s.title for s in (*reversed(history.inside), *reversed(history.earlier)) if _titled(s)), last.url)
    if not history.earlier:
        if not last.gone:
            words = "a new page of a source watched before" if watched else "the first time this source is seen"
            severity = rules.page_severity("page_added", last.kind, first_of_source=not watched)
            yield Draft("page_added", subject, None, last.url, severity, words, (rules.SERVED,), None, last)
        return
    start = last.fetched_at - timedelta(days=thresholds.flap_window_days)
    # The newest readable snapshot is there for its content, however old it is; for being there it is too old.
    earlier = [s for s in history.earlier if s.fetched_at >= start or s is history.earlier[-1]]
    found = find_move([(s, s.gone) for s in (*earlier, *history.inside)], week.start)
    if isinstance(found, Flap):
        yield draft_flapping(subject, found, lambda gone: "gone" if gone else "served", "the page")
    elif found is not None:
        kind: ChangeKind = "page_gone" if found.after else "page_back"
        certain = (
            rules.SERVED if kind == "page_back" else rules.GONE_410 if last.http_status == 410 else rules.GONE_404
        )
        yield Draft(
            kind,
            subject,
            _served(found.snapshot_before),
            _served(last),
            rules.page_severity(kind, found.snapshot_before.kind),
            f"a {last.kind or 'watched'} page",
            (certain, rules.confirmation(found.confirmed)),
            found.snapshot_before,
            last,
        )


def _titled(snapshot: Snapshot) -> bool:
    # The title of an error page says nothing about the page that was there.
    return bool(snapshot.title) and not snapshot.gone


def _served(snapshot: Snapshot) -> str:
    if snapshot.gone:
        return f"gone (HTTP {snapshot.http_status})"
    return f"served (HTTP {snapshot.http_status})" if snapshot.http_status else "served"
