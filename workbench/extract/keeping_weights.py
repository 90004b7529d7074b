"""Weights of the block features in :mod:`workbench.extract.keeping`. Written by a command, not by hand:

    python -m tests.evaluate fit-text --data DATA

Fitted on the development half of WCXB's development pages (CC BY 4.0), 314 pages, 79260 blocks.
"""

from __future__ import annotations

__all__ = ["WEIGHTS"]

WEIGHTS: dict[str, float] = {
    "constant": -0.7057,
    "words": 0.0572,
    "link_share": -0.4821,
    "short_link": -0.0270,
    "heading": 0.3666,
    "title": -1.4068,
    "item": 0.0812,
    "row": -0.5284,
    "code": -0.1434,
    "quote": 0.7277,
    "sentence": 0.8788,
    "price": -0.2087,
    "words_around": 0.5222,
    "links_around": 0.4258,
    "words_next": 0.0029,
    "heading_before_text": 0.2673,
    "position": -1.2077,
    "before_title": -1.2790,
    "page_links": -0.1793,
    "voted": 0.7209,
    "voted_beside": 0.1513,
    "voted_around": 0.6455,
    "voted_share": -2.0207,
    "voted_on_a_voted_page": 1.9145,
    "before_voted": -0.5292,
    "after_voted": -0.1519,
    "in_main": 0.7040,
    "in_content": 0.0414,
    "in_header": -0.7156,
    "in_footer": -1.1362,
    "in_aside": -0.4761,
    "in_navigation": -0.7386,
    "in_form": -0.5591,
    "in_button": -0.4444,
    "in_hidden": -0.3866,
    "in_dialog": -1.4857,
    "in_consent": -2.0719,
    "in_share": -1.0319,
    "in_sign_up": -1.7057,
    "in_related": -0.6499,
    "in_comment": -0.5997,
    "in_review": -0.9567,
    "in_byline": -0.0313,
    "in_advert": -0.1023,
    "in_filter": -1.1929,
    "in_promotion": -1.4240,
    "in_card": 0.1137,
    "in_panel": 0.3078,
    "in_figure": -0.3653,
}
