"""Main text, title, language and date: what is kept, in which order, and what is not."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.extract.blocks import Hint, read_blocks
from workbench.extract.document import parse_document
from workbench.extract.keeping import FEATURES, block_features, choose_blocks, count_words, split_words
from workbench.extract.keeping_weights import WEIGHTS
from workbench.extract.language import language_from_text, read_language
from workbench.extract.published import read_published
from workbench.extract.text import read_text, text_from_blocks
from workbench.extract.title import read_title

GUIDE = """
<html lang="en"><head><title>How to choose a paper tablet | Penrill</title></head><body>
<header><a href="/">Penrill</a>
<nav><a href="/one">One</a> <a href="/news">News</a> <a href="/help">Help</a></nav></header>
<main><h1>How to choose a paper tablet</h1>
<p>A paper tablet is a slow screen that is kind to your eyes. Before you buy one, think about what you write,
where you write it, and who has to read it afterwards.</p>
<h2>The display</h2>
<p>Most displays are a little over ten inches wide, which is close to a sheet of letter paper with narrow margins. A
front light helps in the evening, and it should be able to turn warm.</p>
<ul><li>Ten inches for documents and music sheets, which are printed for large paper.</li>
<li>Seven inches for reading on the way, since a small tablet fits into a coat.</li></ul>
<table><tr><th>Model</th><th>Width of the display</th><th>Weight with its pen</th></tr>
<tr><td>Penrill One</td><td>10.1 inches, no front light</td><td>355 grams with the stylus</td></tr></table>
<h2>The pen</h2>
<p>A pen that needs no charging is one thing less to think about. Look at the delay between pen and ink, too:<br>below
thirty milliseconds nobody can see it.</p></main>
<aside class="related"><h3>You may also like</h3><a href="/a">Ten planners</a> <a href="/b">Nine pens</a></aside>
<footer><p>Imprint Privacy Terms of sale Contact Careers</p></footer>
<div id="cookie-banner" role="dialog"><p>We use cookies to improve your experience on this site.</p>
<button>Accept</button></div>
</body></html>
"""


class TestText:
    def test_content_is_kept_in_reading_order(self) -> None:
        text = read_text(parse_document(GUIDE)).text
        marks = [
            "kind to your eyes",
            "## The display",
            "A\nfront light",
            "- Ten inches",
            "- Seven inches",
            "## The pen",
        ]
        places = [text.find(mark.replace("\n", " ")) for mark in marks]
        assert min(places) >= 0
        assert places == sorted(places)

    def test_tables_are_kept(self) -> None:
        assert (
            "Penrill One | 10.1 inches, no front light | 355 grams with the stylus"
            in read_text(parse_document(GUIDE)).text
        )

    @pytest.mark.parametrize("unwanted", ["cookies", "Careers", "Nine pens", "Accept", "News"])
    def test_what_is_around_the_content_is_not(self, unwanted: str) -> None:
        assert unwanted not in read_text(parse_document(GUIDE)).text

    def test_the_shared_tree_is_left_as_it_was(self) -> None:
        document = parse_document(GUIDE)
        before = document.tree.text_content(), len(list(document.tree.iter()))
        read_text(document)
        assert (document.tree.text_content(), len(list(document.tree.iter()))) == before

    def test_the_same_page_gives_the_same_text(self) -> None:
        assert read_text(parse_document(GUIDE)).text == read_text(parse_document(GUIDE)).text

    def test_chinese_content_is_kept(self) -> None:
        paragraphs = "".join(
            f"<p>{text}</p>"
            for text in (
                "墨舒 M2 是一款为长时间阅读和书写设计的纸感平板，屏幕不反光，眼睛不累。",
                "第三代纸感膜让书写阻尼接近真实纸张，笔尖延迟低至二十一毫秒。",
                "一次充电可以使用三周以上，出差一个月也不必带充电器。",
            )
        )
        nav = "<nav><a href='/a'>首页</a><a href='/b'>配件</a></nav>"
        text = read_text(parse_document(f"<html lang='zh'><body>{nav}<main>{paragraphs}</main></body></html>")).text
        assert "眼睛不累" in text
        assert "二十一毫秒" in text
        assert "首页" not in text

    def test_a_pricing_page_of_few_words_is_kept_whole(self) -> None:
        cards = "".join(
            f"<div class='card'><h3>{name}</h3><p>{price}</p><ul><li>{feature}</li><li>手写转文字</li></ul></div>"
            for name, price, feature in (("基础版", "免费", "2GB 云空间"), ("会员版", "￥18/月", "100GB 云空间"))
        )
        page = f"<html><body><h1>墨舒云会员</h1><p>不开通会员也能正常使用墨舒 M2。</p>{cards}</body></html>"
        text = read_text(parse_document(page), kind="pricing").text
        assert [text.count(part) for part in ("基础版", "会员版", "2GB 云空间", "100GB 云空间", "￥18/月")] == [
            1,
            1,
            1,
            1,
            1,
        ]

    def test_posts_of_a_forum_are_content(self) -> None:
        posts = "".join(
            f"<article class='post'><div class='author'>reader{i}</div><div class='body'>{text}</div></article>"
            for i, text in enumerate(
                (
                    "Has anyone managed to print from the tablet? Mine finds the printer but nothing comes out.",
                    "You have to save the page as PDF first and send it from the share menu, that works every time.",
                    "Thank you, that was it. I would still like to see a print button in the next update, though.",
                )
            )
        )
        text = read_text(parse_document(f"<html><body><h1>Printing</h1>{posts}</body></html>")).text
        assert "nothing comes out" in text
        assert "share menu" in text
        assert "print button" in text

    def test_code_keeps_its_lines(self) -> None:
        blocks = read_blocks(parse_document("<body><pre>def f():\n    return 1\n</pre></body>").tree)
        assert text_from_blocks(blocks) == "def f():\n    return 1"


class TestBlocks:
    def test_kinds_and_levels(self) -> None:
        html = "<h2>A</h2><p>b</p><ul><li>c</li></ul><table><tr><td>d<td>e</table><blockquote>f</blockquote>"
        blocks = read_blocks(parse_document(html).tree)
        assert [(block.text, block.kind, block.level) for block in blocks] == [
            ("A", "heading", 2),
            ("b", "paragraph", None),
            ("c", "item", None),
            ("d | e", "row", None),
            ("f", "quote", None),
        ]

    def test_links_are_measured(self) -> None:
        (block,) = read_blocks(parse_document("<p>half <a href='/x'>half</a></p>").tree)
        assert block.link_share == pytest.approx(4 / 9)

    @pytest.mark.parametrize(
        ("markup", "hint"),
        [
            ("<nav><p>words here</p></nav>", Hint.NAVIGATION),
            ("<div class='site-footer'><p>words here</p></div>", Hint.FOOTER),
            ("<div id='cookieConsent'><p>words here</p></div>", Hint.CONSENT),
            ("<div hidden><p>words here</p></div>", Hint.HIDDEN),
            ("<div style='display: none'><p>words here</p></div>", Hint.HIDDEN),
            ("<main><p>words here</p></main>", Hint.MAIN),
        ],
    )
    def test_hints_come_from_the_markup(self, markup: str, hint: Hint) -> None:
        page = parse_document(f"<body>{markup}<p>{'the rest of the page ' * 9}</p></body>")
        assert read_blocks(page.tree)[0].hints & hint

    @pytest.mark.parametrize("names", ["navy-sofa", "has-sidebar", "md:hidden", "overflow-hidden", "roadmap"])
    def test_words_inside_words_are_no_hints(self, names: str) -> None:
        page = parse_document(f"<body><div class='{names}'><p>words</p></div><p>{'the rest ' * 9}</p></body>")
        assert not read_blocks(page.tree)[0].hints

    def test_a_name_on_the_whole_page_says_nothing(self) -> None:
        page = parse_document("<body><div class='modal'><p>All of the text of the page is in here.</p></div></body>")
        assert not read_blocks(page.tree)[0].hints & Hint.DIALOG


class TestKeeping:
    def test_every_feature_has_a_weight(self) -> None:
        assert set(WEIGHTS) == set(FEATURES)

    def test_a_row_has_a_number_for_every_feature(self) -> None:
        blocks = read_blocks(parse_document(GUIDE).tree)
        rows = block_features(blocks, "kind to your eyes")
        assert {len(row) for row in rows} == {len(FEATURES)}

    def test_sure_content_takes_no_doubtful_blocks_with_it(self) -> None:
        assert choose_blocks([0.95, 0.9, 0.3, 0.05], [100, 100, 100, 100]) == [True, True, False, False]

    def test_a_page_of_doubtful_blocks_is_not_left_empty(self) -> None:
        assert choose_blocks([0.3, 0.3, 0.3], [10, 10, 10]) == [True, True, True]

    @given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(1, 500)), min_size=1, max_size=9))
    def test_no_other_set_has_a_higher_expected_f1(self, blocks: list[tuple[float, float]]) -> None:
        chances, lengths = [chance for chance, _ in blocks], [length for _, length in blocks]
        total = sum(chance * length for chance, length in blocks)

        def expected(kept: list[bool]) -> float:
            right = sum(c * n for c, n, keep in zip(chances, lengths, kept, strict=True) if keep)
            return 2 * right / (total + sum(n for n, keep in zip(lengths, kept, strict=True) if keep))

        every = range(1, 2 ** len(blocks))
        best = max(expected([bool(bits >> index & 1) for index in range(len(blocks))]) for bits in every)
        assert expected(choose_blocks(chances, lengths)) == pytest.approx(best)

    def test_chinese_is_counted_by_characters(self) -> None:
        assert split_words("M2 纸感平板") == ["m2", "纸", "感", "平", "板"]
        assert count_words("纸感平板") == pytest.approx(2.4)


class TestTitle:
    @pytest.mark.parametrize(
        ("head", "body", "url", "title"),
        [
            ("<title>Penrill One | Penrill</title>", "", "https://www.penrill.example/one", "Penrill One"),
            ("<title>Folio - Ondine</title><meta property='og:site_name' content='Ondine'>", "", None, "Folio"),
            ("<title>Ondine: Folio</title>", "", "https://ondine.example/", "Ondine: Folio"),
            ("<title>Pen - Paper - Shop</title>", "<h1>Pen - Paper</h1>", None, "Pen - Paper"),
            ("<title>A - B</title>", "", None, "A - B"),
            ("<title>Home - Ondine</title>", "", "https://ondine.example/", "Home - Ondine"),
            ("<title>| Paper weekly</title>", "", None, "Paper weekly"),
            ("<title>x</title><meta property='og:title' content='The real one'>", "", None, "The real one"),
            ("<title>Ondine</title>", "<h1>Folio</h1>", "https://ondine.example/folio", "Folio"),
            ("", "<h1> Only a\n heading </h1>", None, "Only a heading"),
            (
                "<title>墨舒 M2 纸感平板_墨舒</title><meta property='og:site_name' content='墨舒'>",
                "",
                None,
                "墨舒 M2 纸感平板",
            ),
            ("", "<p>nothing</p>", None, None),
            ("", "<svg><title>icon</title></svg><p>x</p>", None, None),
        ],
    )
    def test_title(self, head: str, body: str, url: str | None, title: str | None) -> None:
        page = f"<html><head>{head}</head><body>{body}</body></html>"
        assert read_title(parse_document(page, url=url)) == title


class TestLanguage:
    @pytest.mark.parametrize(
        ("text", "language"),
        [
            ("The tablet is light and the pen is with you when you are on the way to work.", "en"),
            ("Das Tablet ist leicht und der Stift ist immer bei dir, auch wenn du nicht zu Hause bist.", "de"),
            ("La tablette est légère et le stylet est toujours avec vous, même dans le train.", "fr"),
            ("La tableta es ligera y el lápiz está siempre con usted, para que no se pierda.", "es"),
            ("Il tablet è leggero e la penna è sempre con te, anche quando non sei in casa.", "it"),
            ("O tablet é leve e a caneta não se perde, para que você possa escrever em casa.", "pt"),
            ("De tablet is licht en de pen is altijd bij je, ook als je niet thuis bent met het werk.", "nl"),
            ("Tablet jest lekki i nie męczy oczu, a rysik jest zawsze przy tobie, bo się nie gubi.", "pl"),
            ("纸感平板适合长时间阅读和书写，眼睛不累。", "zh"),
            ("紙感平板適合長時間閱讀和書寫，眼睛不累。", "zh"),
            ("このタブレットは長時間の読書に適しています。", "ja"),
            ("이 태블릿은 오래 읽기에 좋습니다.", "ko"),
            ("Планшет лёгкий, и перо не теряется, как это бывает в дороге, что очень удобно для работы.", "ru"),
            ("Penrill One Slate Folio Nibs Case", None),
            ("12345", None),
        ],
    )
    def test_from_text(self, text: str, language: str | None) -> None:
        assert language_from_text(text) == language

    @pytest.mark.parametrize(
        ("page", "language"),
        [
            ("<html lang='zh-Hant-TW'><body>x</body></html>", "zh"),
            ("<html lang='EN_us'><body>x</body></html>", "en"),
            ("<html><head><meta http-equiv='content-language' content='de'></head><body>x</body></html>", "de"),
            ("<html><head><meta property='og:locale' content='fr_FR'></head><body>x</body></html>", "fr"),
            ("<html lang='en'><body>这是一个模板写错语言的中文页面，内容都是中文。</body></html>", "zh"),
            ("<html lang='ja'><body>東京特許許可局長今日急遽休暇許可拒否</body></html>", "ja"),
            ("<html lang='xx-invalid'><body>The pen is with you and the paper is too.</body></html>", "en"),
        ],
    )
    def test_declared(self, page: str, language: str) -> None:
        assert read_language(parse_document(page), "") == language


class TestPublished:
    @pytest.mark.parametrize(
        ("page", "url", "kind", "day"),
        [
            ("<meta property='article:published_time' content='2026-11-13T09:00:00Z'>", None, "news", "2026-11-13"),
            ("<p>x</p>", "https://penrill.example/news/2026/11/09/cheaper", "news", "2026-11-09"),
            (
                "<time datetime='2026-11-19'>Thu</time><p>a</p><time datetime='2026-11-02'>Mon</time><p>b</p>",
                None,
                "changelog",
                "2026-11-19",
            ),
            ("<div class='review'><p>20 November 2026</p></div>", None, "product", None),
            ("<meta property='article:published_time' content='2026-11-13'>", None, "product", "2026-11-13"),
            ("<p>posted 3 days ago</p>", None, "news", None),
        ],
    )
    def test_date(self, page: str, url: str | None, kind: str, day: str | None) -> None:
        document = parse_document(f"<html><head></head><body>{page}</body></html>", url=url)
        found = read_published(document, kind=kind)
        assert found == (dt.date.fromisoformat(day) if day else None)

    def test_the_clock_plays_no_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import htmldate.validators

        class Long:
            @staticmethod
            def now(tz: dt.tzinfo | None = None) -> dt.datetime:
                return dt.datetime(1999, 1, 1, tzinfo=tz)

            def __getattr__(self, name: str) -> object:
                return getattr(dt.datetime, name)

        document = parse_document("<meta property='article:published_time' content='2026-11-13'><p>x</p>")
        expected = read_published(document, kind="news")
        monkeypatch.setattr(htmldate.validators, "datetime", Long())
        assert read_published(document, kind="news") == expected == dt.date(2026, 11, 13)


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.text(max_size=30), lambda inner: st.lists(inner, max_size=4).map("".join), max_leaves=20))
def test_blocks_have_text_and_a_share_of_links(text: str) -> None:
    blocks = read_blocks(parse_document(f"<div><p>{text}</p><ul><li>{text}</li></ul></div>").tree)
    assert all(block.text.strip() and 0 <= block.link_share <= 1 for block in blocks)
