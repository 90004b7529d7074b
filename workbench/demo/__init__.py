"""A bundled workspace of fictional companies, so that everything can be tried offline.

Every company, product and person in it is made up, every text was written for this project, and the addresses end in
.example, which is reserved.

The market is paper tablets with cloud plans. *Larkpaper* (own company) sells the Slate 10 and has a quiet month. Four
weeks of its competitors' pages are in the archive, 2026-W44 to 2026-W47:

Ondine
    Handwriting search arrives in W45, free while in beta. On 12 November synchronising breaks; readers are furious
    and a hotfix comes a week later. In W47 the Folio falls from $449 to $399 for Black Week, and the search moves
    into the paid Plus plan. The site's robots.txt keeps us from its campaign pages.
Penrill
    The cheap one: $329, then $319 in W46. On 13 November it ends its Free plan, raises Team from $10 to $12 a user
    and takes its page about the free cloud off the net (404). On the accessories page the price of the keyboard case
    flaps, and nibs are sold out for a week. The community's server answers with 503 or not at all from W45 on.
Moshu 墨舒
    Chinese pages: the product page in GBK and without structured data, the Taiwan edition in Big5. The M2 goes from
    ¥2,299 to ¥2,249, to ¥2,199 for Singles' Day and back. After it only pre-orders are taken, and in W47 the tablet
    is sold out, while its battery claim grows from three weeks to five. The Taiwan edition blocks our last visit.

Some things change that are no news, on purpose: session tokens, a cookie banner, the year in a footer, the order of
links and of accessories.

``content/`` holds what the sites say and when it changes, ``site/`` their templates; ``world`` reads the first,
``pages`` fills the second, ``build`` archives the result.
"""

from __future__ import annotations

from workbench.demo.build import make_demo

__all__ = ["make_demo"]
