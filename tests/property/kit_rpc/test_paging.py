"""Page tokens: what was put in comes out, for the same query, and nothing else ever does."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.registry.v1.service_pb2 import ListModelsRequest
from headrace_kit.auth import set_seal_key
from headrace_kit.errors import InvalidArgument
from headrace_kit.paging import page_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(last=TEXT, parent=TEXT, first=st.integers(1, 1000), second=st.integers(0, 1000))
def test_a_token_goes_on_where_its_page_ended(last: str, parent: str, first: int, second: int) -> None:
    token = page_of(ListModelsRequest(parent=parent, page_size=first)).token(last, count=first)
    page = page_of(ListModelsRequest(parent=parent, page_size=second, page_token=token))
    assert (page.after, page.limit) == (last, second or 100)


@given(last=TEXT, parent=TEXT, other=TEXT)
def test_a_token_of_another_query_is_refused(last: str, parent: str, other: str) -> None:
    token = page_of(ListModelsRequest(parent=parent)).token(last, count=100)
    if parent != other:
        with pytest.raises(InvalidArgument) as refusal:
            page_of(ListModelsRequest(parent=other, page_token=token))
        assert refusal.value.field == "page_token"


@given(token=TEXT | st.binary(max_size=100).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_a_made_up_token_is_refused(token: str) -> None:
    if token:
        with pytest.raises(InvalidArgument):
            page_of(ListModelsRequest(page_token=token))


@given(last=TEXT, at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_token_that_was_changed_is_refused(last: str, at: int, bit: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(page_of(ListModelsRequest()).token(last, count=100)))
    raw[at % len(raw)] ^= 1 << bit
    with pytest.raises(InvalidArgument):
        page_of(ListModelsRequest(page_token=base64.urlsafe_b64encode(raw).decode()))


def test_a_token_of_another_platform_is_refused() -> None:
    token = page_of(ListModelsRequest()).token("x", count=100)
    set_seal_key(b"another platform's")
    try:
        with pytest.raises(InvalidArgument):
            page_of(ListModelsRequest(page_token=token))
    finally:
        set_seal_key(b"")


@pytest.mark.parametrize("size", [-1, 1001, 2**31 - 1])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        page_of(ListModelsRequest(page_size=size))
    assert refusal.value.field == "page_size"


def test_the_last_page_has_no_token() -> None:
    page = page_of(ListModelsRequest(page_size=10))
    assert page.token("x", count=9) == ""
    assert page.token("x", count=10) != ""
