"""Fetching pages politely. The only part of the workbench besides ``deliver`` that touches the network."""

from workbench.collect.collector import collect
from workbench.collect.pacing import Pacing
from workbench.collect.result import CollectResult, Outcome

__all__ = ["CollectResult", "Outcome", "Pacing", "collect"]
