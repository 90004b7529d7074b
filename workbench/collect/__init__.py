"""Fetching pages politely. The only part of the workbench besides ``deliver`` that touches the network."""
