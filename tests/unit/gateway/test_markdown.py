"""Markdown of a card is shown without giving its writer a page."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_gateway.markdown import Markdown

ALLOWED = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "em", "strong", "code", "pre"),
    *("blockquote", "hr", "br", "a", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"href", "title", "rel", "start", "class", "style"}
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt&#58;alert(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](vbscript:x)",
    "[a](//evil.example)",
    "[a](/\\\\evil.example)",
    "![a](https://tracker.example/x.png)",
    "<javascript:alert(1)>",
    '[a](https://x "" onmouseover=alert(1)")',
    "<iframe src=javascript:alert(1)>",
    "```<script>\nx\n```",
    "| a |\n|:-:|\n| <b onclick=x> |",
    "[a]: javascript:alert(1)\n\n[a]",
)


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def require_safe(html: str) -> None:
    tags = Tags()
    tags.feed(html)
    for tag, attributes in tags.found:
        assert tag in ALLOWED, html
        assert set(attributes) <= ATTRIBUTES, html
        if tag == "a":
            href = attributes["href"]
            assert href.lower().startswith(("http://", "https://", "mailto:", "/", "#")), html
            assert not href.startswith(("//", "/\\")), html
            assert attributes["rel"] == "noopener noreferrer nofollow"
        assert attributes.get("style", "text-align:").startswith("text-align:"), html


def test_text_lists_tables_and_links_are_shown() -> None:
    html = str(Markdown()("# Delays\n\n- *late* flights\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[us](https://x.example)"))

    assert "<h1>Delays</h1>" in html
    assert "<li><em>late</em> flights</li>" in html
    assert "<td>1</td>" in html
    assert '<a href="https://x.example" rel="noopener noreferrer nofollow">us</a>' in html


@pytest.mark.parametrize("text", HOSTILE)
def test_what_would_act_is_text(text: str) -> None:
    require_safe(str(Markdown()(text)))


@given(st.lists(st.sampled_from(HOSTILE) | st.text(max_size=20), max_size=6).map("".join))
def test_nothing_that_is_written_is_more_than_text_and_links(text: str) -> None:
    require_safe(str(Markdown()(text)))
