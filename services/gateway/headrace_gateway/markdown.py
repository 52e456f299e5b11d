"""Markdown that anybody may have written, as HTML that is safe to show."""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup

_LINK: Final = re.compile(r"https?://|mailto:|/(?![/\\])|#", re.IGNORECASE)


class Markdown(MarkdownIt):
    """CommonMark with tables: HTML in it is shown as text, images are links, and links lead to the web or in here."""

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": False})
        self.enable("table")
        self.disable("image")
        self.add_render_rule("link_open", _link)

    def validateLink(self, url: str) -> bool:  # noqa: N802  the library's name
        """Whether a link may lead there."""
        return _LINK.match(url) is not None

    def __call__(self, text: str) -> Markup:
        """The text as HTML."""
        return Markup(self.render(text))  # noqa: S704  what it renders is escaped


def _link(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,
    environment: MutableMapping[str, Any],  # Any: what the library passes through
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return renderer.renderToken(tokens, index, options, environment)
