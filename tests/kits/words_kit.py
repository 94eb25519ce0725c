"""Words that nobody may say of a synthetic set: no proof of them exists."""

from __future__ import annotations

import re

FORBIDDEN = re.compile(
    r"anonym\w*"
    r"|de-?identif\w*"
    r"|\bprivate(?:ly)?\b"
    r"|\bsafe(?:r|st|ly|ty)?\b"
    r"|\b(?:gdpr|hipaa)[\s-]+complian\w*"
    r"|\bcomplian(?:t|ce) with (?:the )?(?:gdpr|hipaa)\b"
    r"|no patient data (?:ever )?leaves"
    r"|visually (?:different|dissimilar|unlike)"
    r"|privacy[- ]preserving|privacy for free"
    r"|\bfake\b",
    re.IGNORECASE,
)


def forbidden_in(text: str) -> list[str]:
    """Every such word in `text`, with its neighbours, however lines are broken."""
    flat = " ".join(text.split())
    return [flat[max(0, of.start() - 40) : of.end() + 40] for of in FORBIDDEN.finditer(flat)]
