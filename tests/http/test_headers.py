"""Header fields: as they are read, and as they are sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve.http.headers import HeaderFields, encode_header, reason_phrase


def test_fields_that_come_more_than_once_are_joined() -> None:
    fields = HeaderFields([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert fields.values == {b"a": b"1, 3", b"b": b"2"}
    assert list(fields) == [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert fields.host is None


def test_host_is_text() -> None:
    assert HeaderFields([(b"host", b"b\xfccher.example:80")]).host == "bücher.example:80"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\n", "ä", "a\x00"])
def test_what_is_no_header_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a header name"):
        encode_header(name, "x")


@given(st.text())
def test_no_value_splits_a_head(value: str) -> None:
    try:
        _, raw = encode_header("X-Any", value)
    except ValueError:
        return
    assert not set(raw) & {*range(9), *range(10, 32), 127}


def test_numbers_and_bytes_are_values_too() -> None:
    assert encode_header("X-N", 5) == (b"X-N", b"5")
    assert encode_header(b"X-N", b" \xe9 ") == (b"X-N", b"\xe9")


def test_reason_phrases() -> None:
    assert [reason_phrase(status) for status in (200, 404, 299)] == ["OK", "Not Found", ""]
