"""A page as the standard library reads it."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Elements in order as (tag, attributes), ids, links, the rows of every table by caption, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self.words: list[str] = []
        self.caption = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID and not self._drawn():
            self.open.append(tag)
        if tag == "caption":
            self.caption = ""
        if tag == "tr":
            self.tables.setdefault(self.caption, []).append([])
        if tag in ("td", "th"):
            self.tables[self.caption][-1].append("")

    def _drawn(self) -> bool:
        """Whether this is inside an SVG, whose elements may close themselves."""
        return "svg" in self.open

    def handle_endtag(self, tag):
        if self._drawn() and tag != "svg":
            return
        assert tag == self.open.pop(), f"</{tag}> out of place"

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            return
        self.words.append(data)
        if "caption" in self.open:
            self.caption += data
        if self.open and {"td", "th"} & set(self.open):
            self.tables[self.caption][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.elements if a.get("id")]

    @property
    def figures(self) -> list[float]:
        """The exact values behind the numbers of the verdict."""
        return [float(a["value"]) for a in self.all("data")]
