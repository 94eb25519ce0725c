"""What a browser would find in a report's page, and which numbers stand in its JSON."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class PageReader(HTMLParser):
    """What a browser would find in a page: elements, addresses, and the exact figures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.figures: list[float] = []
        self.ids: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self._inside.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in {"src", "href", "xlink:href", "action", "srcset", "data", "poster"}:
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if tag == "data" and name == "value":
                self.figures.append(float(value or "nan"))

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"data", "svg", "style"} & set(self._inside):
            self.text += data


def numbers_of(value: Any) -> set[float]:
    if isinstance(value, dict):
        return {n for v in value.values() for n in numbers_of(v)}
    if isinstance(value, list):
        return {n for v in value for n in numbers_of(v)}
    return {float(value)} if isinstance(value, int | float) else set()
