"""What kind of character is this? The answers that the `tokenizers` library gives.

Unicode grows every year, and Python's `unicodedata` with it. The library's tables are older: its
categories are those of Unicode 8 (2015), its decompositions those of Unicode 9. So a tokenizer that
asks Python cuts some hundreds of rare characters otherwise than the library does, and which ones
depends on the version of Python. The functions here answer as the library does, everywhere: they
ask Python, and know the exceptions. `tests/test_tokenization.py` compares every code point.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Sequence

__all__ = ["category", "decompose", "lower"]


def _points(ranges: str) -> frozenset[str]:
    """The characters in ranges of code points such as "5c8-5c9 61d"."""
    found: list[str] = []
    for part in ranges.split():
        first, _, last = part.partition("-")
        found += map(chr, range(int(first, 16), int(last or first, 16) + 1))
    return frozenset(found)


# Punctuation, marks and format characters that came after Unicode 8: not yet assigned, says the
# library. (Other newcomers are letters and symbols; for those it makes no difference.)
_YOUNG = _points("""
5c8-5c9 61d 7fd 890-891 897-89f 8ca-8e2 9fd-9fe a76 afa-aff b53-b55 c04 c3c c77 c84 d00 d3b-d3c
d81 eba ece 180f 1885-1886 1abf-1af0 1b4e-1b4f 1b7d-1b7f 1df6-1dfb 2e43-2e4f 2e52-2e5d 2e60-2e63
a82c a8c5 a8ff a9bd 10d24-10d27 10d69-10d6e 10eab-10ead 10ecb-10ed0 10ef0-10eff 10f46-10f50
10f55-10f59 10f82-10f89 11070 11073-11074 110c2 110cd 111c9 111cf 1123e 11241 1133b 113bb-113c0
113ce 113d0 113d2 113d4-113d5 113d7-113d8 113e1-113e2 11438-1143f 11442-11444 11446 1144b-1144f
1145a-1145b 1145d-1145e 11660-1166c 116b9 1182f-11837 11839-1183b 1193b-1193c 1193e 11943-11946
119d4-119d7 119da-119db 119e0 119e2 11a01-11a0a 11a33-11a38 11a3b-11a47 11a51-11a56 11a59-11a5b
11a8a-11a96 11a98-11a9c 11a9e-11aa2 11b00-11b09 11b60 11b62-11b64 11b66 11be1 11c30-11c36
11c38-11c3d 11c3f 11c41-11c45 11c70-11c71 11c92-11ca7 11caa-11cb0 11cb2-11cb3 11cb5-11cb6
11d31-11d36 11d3a 11d3c-11d3d 11d3f-11d45 11d47 11d90-11d91 11d95 11d97 11df0 11ef3-11ef4
11ef7-11ef8 11f00-11f01 11f36-11f3a 11f40 11f42-11f4f 11f5a 11fff 12ff1-12ff2 13430-13440
13447-13455 1611e-16129 1612d-1612f 16d6d-16d6f 16e97-16e9a 16f4f 16fe2 16fe4 1cf00-1cf2d
1cf30-1cf46 1d127-1d128 1d25b-1d25c 1e000-1e006 1e008-1e018 1e01b-1e021 1e023-1e024 1e026-1e02a
1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef 1e5ee-1e5ef 1e5ff 1e6e3 1e6e6 1e6ee-1e6ef 1e6f5
1e944-1e94a 1e95e-1e95f
""")
# Characters whose category changed, as it was then.
_CHANGED = {"\u1734": "Mn", "\u166d": "Po", "\U000111c9": "Po", "\U0001171e": "Mn"}
# Characters that decompose, and marks that have a place in the order of marks, since Unicode 10.
_WHOLE = _points("""
105c9 105e4 11383 11385 1138e 11391 113c5 113c7-113c8 11938 16121-16128 16d68-16d6a
""")
_UNORDERED = _points("""
5c8-5c9 7fd 897-89f 8ca-8d3 9fe c3c d3b-d3c eba 1715 1abf-1af0 1df6-1dfa a82c 10d24-10d27
10d69-10d6d 10eab-10eac 10ecb-10ecf 10ef0-10efb 10efd-10eff 10f46-10f50 10f82-10f85 11070 1133b
113ce-113d0 1145e 11839-1183a 1193d-1193e 11943 119e0 11a34 11a47 11a99 11d42 11d44-11d45 11d97
11f41-11f42 1612f 16ff0-16ff1 1d127-1d128 1d250-1d252 1d25f 1d280-1d281 1e08f 1e130-1e136 1e2ae
1e2ec-1e2ef 1e4ec-1e4ef 1e5ee-1e5ef 1e6e3 1e6e6 1e6ee-1e6ef 1e6f5
""")
# Capital letters of Unicode 15 to 17, which the Python of an older year does not lower.
_LOWER = dict(
    zip(
        "\u1c89\ua7cb\ua7cc\ua7ce\ua7d2\ua7d4\ua7da\ua7dc",
        "\u1c8a\u0264\ua7cd\ua7cf\ua7d3\ua7d5\ua7db\u019b",
        strict=True,
    )
)
_LOWER |= {chr(point): chr(point + 0x20) for point in range(0x10D50, 0x10D66)}
_LOWER |= {chr(point): chr(point + 0x1B) for point in range(0x16EA0, 0x16EB9)}


@functools.cache
def category(char: str) -> str:
    """The two letters of a character's general category: "Lu" for a capital letter, "Mn" for a
    mark without width such as an accent, "P." for punctuation, "Cc" for control."""
    if char in _CHANGED:
        return _CHANGED[char]
    return "Cn" if char in _YOUNG else unicodedata.category(char)


@functools.cache
def lower(char: str) -> str:
    """A character in lower case: one character, or two for the Turkish capital İ."""
    return _LOWER.get(char) or char.lower()


def decompose(chars: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Canonical decomposition (NFD): ``é`` becomes ``e`` and its accent, two characters.

    Args:
        chars: characters, each with the place in a text that it stands for.

    Returns:
        the parts, each with a place. All parts of one character have its place. Where several
        marks follow a letter, Unicode puts them into one order; they exchange their places, too.
    """
    found = [(part, place) for char, place in chars for part in _parts(char)]
    if not any(_order(part) for part, _ in found):
        return found
    parts = [(part, number > 0) for char, _ in chars for number, part in enumerate(_parts(char))]
    ordered: list[tuple[str, bool]] = []
    for _, run in itertools.groupby(parts, key=lambda part: _order(part[0]) > 0):
        ordered += sorted(run, key=lambda part: _order(part[0]))  # stable: letters stay
    found, places, place = [], iter([place for _, place in chars]), 0
    for part, belongs_to_the_last in ordered:
        if not belongs_to_the_last:
            place = next(places)
        found.append((part, place))
    return found


@functools.cache
def _parts(char: str) -> str:
    return char if char in _WHOLE else unicodedata.normalize("NFD", char)


@functools.cache
def _order(char: str) -> int:
    """The combining class: 0 for what stands by itself."""
    return 0 if char in _UNORDERED else unicodedata.combining(char)
