"""Decoding and parsing: the right characters from any declaration, and a tree from anything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.extract.document import MAX_CHARACTERS, parse_document

CHINESE = "这是一款专为阅读和书写设计的电子纸平板，支持手写笔，价格为二千九百九十九元，现货发售，欢迎购买。"
TAIWAN = "這是一款專為閱讀和書寫設計的電子紙平板，支援手寫筆，價格為二千九百九十九元，現貨發售，歡迎購買。"
RUSSIAN = "Это устройство предназначено для чтения и письма. Цена снижена, товар есть в наличии."
FRENCH = "Cette tablette est conçue pour lire et écrire, été comme hiver. Le prix est très réduit à Genève."
JAPANESE = "このタブレットは読書と手書きのために設計されました。在庫があります。"
KOREAN = "이 태블릿은 독서와 필기를 위해 설계되었습니다. 재고가 있습니다."


def page(text: str, *, charset: str | None = None) -> str:
    declared = f'<meta charset="{charset}">' if charset else ""
    return f"<html><head>{declared}<title>{text[:8]}</title></head><body><p>{text}</p></body></html>"


def read(data: bytes, content_type: str | None = None) -> str:
    paragraph = parse_document(data, content_type=content_type).tree.find(".//p")
    assert paragraph is not None
    return paragraph.text_content()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CHINESE, "gbk"),
        (CHINESE, "gb18030"),
        (TAIWAN, "big5"),
        (TAIWAN, "gbk"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (FRENCH, "latin-1"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (KOREAN, "euc-kr"),
        (CHINESE, "utf-8"),
        (CHINESE, "utf-16"),
    ],
)
class TestEncodings:
    def test_without_a_declaration(self, text: str, encoding: str) -> None:
        assert read(page(text).encode(encoding)) == text

    def test_declared_in_the_page(self, text: str, encoding: str) -> None:
        assert read(page(text, charset=encoding).encode(encoding)) == text

    def test_declared_by_the_server(self, text: str, encoding: str) -> None:
        assert read(page(text).encode(encoding), f"text/html; charset={encoding}") == text

    def test_wrongly_declared_as_utf_8(self, text: str, encoding: str) -> None:
        document = parse_document(page(text, charset="utf-8").encode(encoding))
        assert text in document.html
        if not encoding.startswith("utf"):
            assert any("does not fit the bytes" in warning for warning in document.warnings)


@pytest.mark.parametrize("declared", ["gbk", "big5", "iso-8859-1", "windows-1252", "no-such-charset"])
@pytest.mark.parametrize(("text", "encoding"), [(CHINESE, "gbk"), (TAIWAN, "big5"), (CHINESE, "utf-8")])
def test_a_wrong_declaration_is_noticed_and_named(text: str, encoding: str, declared: str) -> None:
    document = parse_document(page(text).encode(encoding), content_type=f"text/html; charset={declared}")
    assert text in document.html
    if declared != encoding:
        assert any(declared in warning for warning in document.warnings)


def test_gb2312_means_gbk_as_in_browsers() -> None:
    # 镕 and 囍 are not in GB 2312; pages that say gb2312 hold them all the same.
    text = CHINESE + "朱镕基囍"
    assert read(page(text, charset="gb2312").encode("gbk")) == text


def test_the_server_comes_before_the_page() -> None:
    assert read(page(CHINESE, charset="big5").encode("gbk"), "text/html; charset=gbk") == CHINESE


def test_a_few_broken_bytes_do_not_change_the_encoding() -> None:
    document = parse_document(page(CHINESE, charset="utf-8").encode().replace("现货".encode(), b"\xe7\x8e", 1))
    assert "电子纸平板" in document.html
    assert any("could not be read as utf-8" in warning for warning in document.warnings)


def test_controls_and_lone_surrogates_are_left_out() -> None:
    document = parse_document("<p>a\x00b\x0bc\ud800d</p>")
    assert document.tree.text_content() == "abcd"
    assert any("3 control" in warning for warning in document.warnings)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"%PDF-1.7 \x00\x01", "a PDF"),
        (b"\x89PNG\r\n\x1a\n....", "a PNG image"),
        (b"\x00\x01\x02\x03" * 500, "binary data"),
        (b'{"price": [1, 2]}', "JSON"),
        (b"<?xml version='1.0'?><feed><entry><title>x</title></entry></feed>", "XML"),
        (b"only words", "plain text"),
        (b"<!-- nothing else -->", "no markup"),
    ],
)
def test_what_is_no_page_is_said_so(data: bytes, said: str) -> None:
    assert any(said in warning for warning in parse_document(data).warnings)


def test_nesting_beyond_what_the_parser_holds() -> None:
    document = parse_document(b"<div>" * 50_000 + b"deep" + b"</div>" * 50_000 + b"<p>after</p>")
    assert "deep" in document.tree.text_content()
    assert "after" in document.tree.text_content()
    assert any("nested too deeply" in warning for warning in document.warnings)


def test_a_page_beyond_the_limit_is_cut() -> None:
    document = parse_document("<p>" + "x" * (MAX_CHARACTERS + 10))
    assert len(document.html) == MAX_CHARACTERS
    assert any("read up to" in warning for warning in document.warnings)


@pytest.mark.parametrize(
    "data", [b"<" * 2_000_000, b"<!--" * 500_000, b"<script>" * 200_000, b"<meta charset" * 100_000]
)
def test_unclosed_markup_takes_no_quadratic_time(data: bytes) -> None:
    # Seconds apart from minutes: the test's time limit is the assertion that matters.
    assert parse_document(data).tree is not None


class TestLinks:
    def test_relative_to_the_base_element(self) -> None:
        document = parse_document("<base href='/shop/'><p>x", url="https://penrill.example/a/b")
        assert document.base_url == "https://penrill.example/shop/"
        assert document.absolute_url("one.png") == "https://penrill.example/shop/one.png"

    @pytest.mark.parametrize(
        "link", ["javascript:alert(1)", "data:image/png;base64,x", "http://[", "", None, "ftp://a/b"]
    )
    def test_nothing_but_web_addresses(self, link: str | None) -> None:
        assert parse_document("<p>x", url="https://penrill.example/").absolute_url(link) is None


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=3000), st.sampled_from([None, "text/html; charset=gbk", "image/png", "text/html; charset=x"])
)
def test_any_bytes_make_a_document(data: bytes, content_type: str | None) -> None:
    document = parse_document(data, url="https://a.example/", content_type=content_type)
    assert document.tree.tag in ("html", "div", "p", "span") or document.tree is not None
    document.html.encode("utf-8")


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(
        [CHINESE[:20], CHINESE[20:], "支持多种语言", "七天无理由退货", "全国联保", "Penrill One", "2026"]
    ),
    st.sampled_from(["gbk", "gb18030", "utf-8"]),
    st.sampled_from([None, "utf-8", "iso-8859-1"]),
)
def test_chinese_comes_back_whatever_the_declaration(parts: list[str], encoding: str, declared: str | None) -> None:
    text = "。".join(parts)
    assert text in parse_document(page(text, charset=declared).encode(encoding)).html
