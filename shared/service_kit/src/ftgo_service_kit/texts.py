"""Which texts are taken as names, addresses and the like: what everybody can see, in any script."""

import unicodedata

_JOINERS = "\u200c\u200d"  # Persian and many languages of India spell with them, and emoji are made with them
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs by their category, yet nothing is seen
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Controls with DEL and C1, formats (among them those that turn the direction of writing), halves of surrogate pairs,
letters of private use, separators of lines and paragraphs. Letters that this Unicode does not know yet are none."""


def visible(text: str) -> str:
    """The same text. Raises ValueError for one with characters that hide or rearrange what a log line or a page shows,
    and for one that shows nothing."""
    if text.isascii() and text.isprintable() and not text.isspace():
        return text  # most are of this kind, and this costs a tenth
    if not text.isprintable():
        for c in text:
            if not c.isprintable() and c not in _JOINERS and unicodedata.category(c) in _UNSEEN:
                raise ValueError(f"must not contain the control character U+{ord(c):04X}")
    if not any(_seen(c) for c in text):
        raise ValueError("must show at least one letter, digit or sign")
    return text


def _seen(c: str) -> bool:
    category = unicodedata.category(c)
    return (category[0] in "LNPS" or category == "Cn") and c not in _BLANK_LETTERS
