"""Lists of nodes, short and long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumasi.agents.slurm.hostlist import compress, expand


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a1", ["a1"]),
        ("a[08-11]", ["a08", "a09", "a10", "a11"]),
        ("a[1,3],b2", ["a1", "a3", "b2"]),
        ("gpu-r1-[01-02]x,login", ["gpu-r1-01x", "gpu-r1-02x", "login"]),
        ("", []),
    ],
)
def test_a_list_is_expanded(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize("text", ["a[", "a[]", "a[3-1]", "a[1-x]", "a]b", "a[1]b[2]c[", "a[0-999999999]", "a[1][2]"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no list"):
        expand(text)


def test_a_short_form_keeps_beginnings_and_widths_apart() -> None:
    names = ["a01", "a02", "a1", "b7", "a03", "head"]
    assert compress(names) == "a[01-03],a1,b7,head"


_NAMES = st.from_regex(r"[a-z]{1,3}-?([0-9]{1,4})?", fullmatch=True)


@given(st.lists(_NAMES, unique=True))
def test_the_short_form_says_the_same(names: list[str]) -> None:
    assert sorted(expand(compress(names))) == sorted(names)
