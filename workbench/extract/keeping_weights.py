"""Weights of the block features in :mod:`workbench.extract.keeping`. Written by a command, not by hand:

    python -m tests.evaluate fit-text --data DATA

Fitted on the development half of WCXB's development pages (CC BY 4.0), 314 pages, 79260 blocks.
"""

from __future__ import annotations

__all__ = ["WEIGHTS"]

WEIGHTS: dict[str, float] = {
    "constant": -0.6982,
    "words": 0.1329,
    "link_share": -0.4884,
    "short_link": 0.0727,
    "heading": 0.4173,
    "title": -1.4377,
    "item": 0.1682,
    "row": -0.5345,
    "code": -0.3329,
    "quote": 0.9955,
    "sentence": 0.7427,
    "price": -0.2675,
    "words_around": 0.4698,
    "links_around": 0.3927,
    "words_next": 0.0127,
    "heading_before_text": 0.2615,
    "position": -1.2046,
    "before_title": -1.1191,
    "page_links": -0.1499,
    "voted": 0.7186,
    "voted_beside": 0.1075,
    "voted_around": 0.6321,
    "voted_share": -2.0893,
    "voted_on_a_voted_page": 2.0066,
    "before_voted": -0.5111,
    "after_voted": -0.1253,
    "in_main": 0.6019,
    "in_content": 0.2312,
    "in_header": -0.8239,
    "in_footer": -1.1883,
    "in_aside": -0.6052,
    "in_navigation": -0.9981,
    "in_form": -0.3972,
    "in_button": -0.2162,
    "in_hidden": -0.4548,
    "in_dialog": -1.5428,
    "in_consent": -3.1876,
    "in_share": 0.1791,
    "in_sign_up": -1.8199,
    "in_related": -0.6410,
    "in_comment": -0.6044,
    "in_review": -0.7479,
    "in_byline": -0.0565,
    "in_advert": -0.1572,
    "in_filter": -1.2924,
    "in_promotion": -1.5217,
    "in_card": -0.0019,
    "in_panel": 0.2867,
    "in_figure": -0.3154,
}
