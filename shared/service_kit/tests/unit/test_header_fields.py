"""Header fields that come in several lines, or as lists, or not at all."""

import pytest
from ftgo_service_kit.header_fields import elements, none_match
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("a", ["a"]),
        (" a ,b,, ,\tc ", ["a", "b", "c"]),
        ('"a, b", c', ['"a, b"', "c"]),
        (r'x="a\", b", c', [r'x="a\", b"', "c"]),
        ('"a, b', ['"a, b']),
        ('W/"1", "2"', ['W/"1"', '"2"']),
        ('"\\', ['"\\']),
    ],
)
def test_the_elements_of_a_list(value, expected):
    assert elements(value) == expected


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='",\\ '), min_size=1)))
def test_what_is_joined_is_divided_again(parts):
    assert elements(", ".join(parts)) == parts
    assert elements(",".join(f'"{part}, {part}"' for part in parts)) == [f'"{part}, {part}"' for part in parts]


@pytest.mark.parametrize(
    ("field", "full"),
    [
        (None, True),
        ('"1"', True),
        ('"2"', False),
        ('W/"2"', False),
        ('"0", "2"', False),
        ('"0",W/"2" , "3"', False),
        ("*", False),
        ('"*"', True),
        ('"0, 2"', True),
        ("2", True),
    ],
)
def test_a_precondition_names_what_the_client_has(field, full):
    assert none_match(field, '"2"') is full
