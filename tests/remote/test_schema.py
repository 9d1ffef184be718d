"""schema: each type takes what it says and nothing else, in both directions; JSON is read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klyng_mp.remote.schema import (
    Choice,
    Flag,
    Integer,
    Items,
    Maybe,
    MisfitError,
    Octets,
    Record,
    Table,
    Text,
    fit,
    read_json,
    write_json,
)

PERSON = Record({"name": Text(8), "age": Maybe(Integer(0, 150))})

GOOD = [  # a type, a value, what JSON says
    (Integer(-1, 5), -1, -1),
    (Integer(-1, 5), 5, 5),
    (Integer(0, 2**64 - 1), 2**64 - 1, 2**64 - 1),
    (Flag(), True, True),
    (Flag(), False, False),
    (Text(4), "", ""),
    (Text(4), "ümü"[:2], "üm"),
    (Text(4), "🐍", "🐍"),
    (Text(9, lines=True), "a\n\tb", "a\n\tb"),
    (Choice("yes", "no"), "no", "no"),
    (Octets(0, 3), b"", ""),
    (Octets(0, 3), b"\x00\xff", "AP8="),
    (Octets(2), b"ab", "YWI="),
    (Items(Integer(0, 9), 3), [], []),
    (Items(Integer(0, 9), 3), [1, 2, 3], [1, 2, 3]),
    (Items(Octets(1), 1), [b"a"], ["YQ=="]),
    (Table(Octets(1), 1), {"k": b"a"}, {"k": "YQ=="}),
    (Table(Flag(), 1), {}, {}),
    (PERSON, {"name": "Ada", "age": 36}, {"name": "Ada", "age": 36}),
    (Items(PERSON, 2), [{"name": "Ada", "age": 1}], [{"name": "Ada", "age": 1}]),
]

BAD = [  # a type, and what neither side may say
    *((Integer(-1, 5), value) for value in (-2, 6, True, 1.0, "1", None, [1])),
    *((Flag(), value) for value in (0, 1, "true", None)),
    *((Text(4), value) for value in ("abcde", "üüü", "\x00", "a\nb", "\x1b[2J", "\x7f", "\x9b", "\u202e", "\ud800", 1)),
    *((Text(9, lines=True), value) for value in ("a\r\nb", "\x1b", "\x08")),
    *((Choice("yes", "no"), value) for value in ("maybe", "", 1, None, ["yes"])),
    *((Items(Integer(0, 9), 3), value) for value in ([1, 2, 3, 4], [10], (1,), {}, "123", None)),
    *((Table(Flag(), 1), value) for value in ({"a": True, "b": True}, {"a": 1}, [], {"\x00": True}, {"k" * 257: True})),
    *((PERSON, value) for value in ({}, {"age": 3}, {"name": "Ada", "nick": "x"}, {"name": None}, [], "Ada", None)),
]

BAD_BYTES = [  # a type and what JSON may not say
    *((Octets(2), text) for text in ("", "YQ==", "YWJj", "YWI", "YWI=\n", "YW I=", "YWJ=", "YWI==", "=", "é", 1, None)),
    (Octets(0, 3), "YWJjZA=="),
    (Octets(0, 3), "A" * 1000),
    (PERSON, {"name": "Ada", "age": None}),
]


@pytest.mark.parametrize(("of", "value", "said"), GOOD)
def test_what_fits_goes_and_comes(of, value, said):
    assert of.encode(value, "it") == said
    decoded = of.decode(read_json(write_json(said)), "it")
    assert decoded == value
    assert type(decoded) is type(value)


def test_what_does_not_fit_goes_nowhere():
    for of, value in BAD:
        for way in (of.encode, of.decode):
            with pytest.raises(MisfitError, match=r"^it|^a word of it"):
                way(value, "it")


def test_bytes_have_one_spelling():
    for of, said in BAD_BYTES:
        with pytest.raises(MisfitError, match=r"^it"):
            of.decode(said, "it")


@pytest.mark.parametrize("value", [b"abc", b"", bytearray(b"ab"), "ab", None])
def test_bytes_of_another_length_or_type_do_not_go(value):
    with pytest.raises(MisfitError, match="it is not 2 bytes"):
        Octets(2).encode(value, "it")


def test_what_may_be_left_out_is_none_on_both_sides():
    assert PERSON.encode({"name": "Ada", "age": None}, "it") == {"name": "Ada"}
    assert PERSON.encode({"name": "Ada"}, "it") == {"name": "Ada"}
    assert PERSON.decode({"name": "Ada"}, "it") == {"name": "Ada", "age": None}


def test_a_misfit_is_told_where_it_is():
    with pytest.raises(MisfitError, match=r"^it\[1\]\.age is not a number from 0 to 150$"):
        Items(PERSON, 2).decode([{"name": "Ada"}, {"name": "Bob", "age": 151}], "it")


# -- JSON ------------------------------------------------------------------------------------------

NO_JSON = [
    b"",
    b"{",
    b"{}x",
    b"{}{}",
    b"{'a':1}",
    b'{"a":1,}',
    b'{"a":1,"a":1}',
    b'{"a":{"b":1,"b":2}}',
    b"NaN",
    b"[Infinity]",
    b"[-Infinity]",
    b"1.5",
    b"1e3",
    b"[1.0]",
    b"-0.0",
    b"1" * 21,
    b"9" * 100_000,
    b"01",
    b"\xef\xbb\xbf{}",
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"a\nb"',
    b'"\\x41"',
    b"[" * 9 + b"]" * 9,
    b"[" * 100_000,
    b'{"a":' * 9 + b"1" + b"}" * 9,
    b'["\\"",' + b"[" * 9,
    "{}".encode("utf-16"),
]


@pytest.mark.parametrize("text", NO_JSON, ids=lambda text: repr(text[:16]))
def test_what_is_no_strict_json_is_refused(text):
    with pytest.raises(MisfitError):
        read_json(text)


def test_brackets_within_text_are_text():
    text = '"' + '[{\\"' * 1000 + '"'
    assert read_json(text.encode()) == '[{"' * 1000
    assert read_json(b"[" * 8 + b"]" * 8) == [[[[[[[[]]]]]]]]


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_being_refused(data):
    try:
        value = read_json(data)
    except MisfitError:
        return
    assert read_json(write_json(value)) == value or "\\ud" in data.decode().lower()


VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(VALUES)
def test_what_was_written_is_read(value):
    text = write_json(value)
    try:
        assert read_json(text) == value
    except MisfitError:
        assert text.count(b"[") + text.count(b"{") > 8


# -- what programs have written


@given(st.text(max_size=60), st.booleans())
def test_any_text_is_made_to_fit(text, lines):
    of = Text(50, lines=lines)
    fitted = fit(of, text)
    assert of.encode(fitted, "it") == fitted == fit(of, fitted)


def test_what_fits_stays_as_it_is_and_the_rest_is_recognized():
    assert fit(Text(50), "ä plain one") == "ä plain one"
    assert fit(Text(50), "red\x1b[31m\udc80") == "red�[31m?"
    assert fit(Text(50), "a\tb") == "a�b"
    assert fit(Text(50, lines=True), "10 %\r20 %\n\tdone") == "10 %\n20 %\n\tdone"
    assert fit(Text(5), "ääää") == "ää"


def test_texts_are_made_to_fit_wherever_they_are():
    of = Record({"texts": Items(Text(3), 5), "none": Maybe(Text(3)), "number": Integer(0, 9)})
    value = {"texts": ["\x1b", "long text"], "none": None, "number": 4}
    assert fit(of, value) == {"texts": ["�", "lon"], "none": None, "number": 4}
    assert of.encode(fit(of, value), "it") == {"texts": ["�", "lon"], "number": 4}


def test_a_table_may_lack_what_is_none():
    of = Table(Maybe(Text(9)), 5)
    assert of.encode({"numpy": "2.0", "torch": None}, "it") == {"numpy": "2.0"}
    with pytest.raises(MisfitError):
        Table(Text(9), 5).encode({"torch": None}, "it")
    with pytest.raises(MisfitError):
        of.decode({"torch": None}, "it")
