"""Reports as a program reads them: elements, tables and text of a page."""

from html.parser import HTMLParser
from pathlib import Path

from reconstruct.report.pages.write import write_report

VOID = {"meta", "link", "br", "input", "image", "use", "path", "rect"}


class Page(HTMLParser):
    """Elements with their attributes and text, and tables as rows of cells."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._table = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._table = dict(attrs).get("class") or "other"
            self.tables[self._table] = []
        if tag == "tr":
            self.tables[self._table].append([])
        if tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text.setdefault(self._open[-1], []).append(data)
        if {"td", "th"} & set(self._open):
            self.tables[self._table][-1][-1] += f" {data.strip()}"

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def words(self) -> str:
        return " ".join(" ".join(each) for name, each in self.text.items() if name not in ("script", "style"))


def page_of(*folders: Path) -> Page:
    """The report of a run, or of several runs beside each other."""
    target = folders[0].parent / "page.html"
    write_report(folders, target)
    return Page(target)


def number(text: str) -> float:
    """A number as a report writes it."""
    return float(text.replace("−", "-").replace(",", ""))
