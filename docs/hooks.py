"""What the site has beside the pages: files of the repository that they link to, as ``../recipes/photographs.py``.

On a code host such a link leads out of ``docs``; in the site to a copy of the file in the folder ``repository``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)\)")
INTO_DOCS = re.compile(r"\]\(docs/")


def on_files(files: Any, config: Any) -> Any:
    """Adds the files that pages link to."""
    pages = [Path(config.docs_dir) / each.src_uri for each in files.documentation_pages()]
    linked = {target for page in pages if page.parent == Path(config.docs_dir) for target in _outside(page.read_text())}
    for target in sorted(linked):
        if (ROOT / target).is_file():  # mkdocs itself complains of what is not there
            files.append(File.generated(config, f"repository/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links to them to where they are in the site, and links from one of them to a page back."""
    if page.file.src_uri.startswith("repository/"):
        return INTO_DOCS.sub("](../", markdown)
    return OUTSIDE.sub(r"](repository/\1)", markdown) if "/" not in page.file.src_uri else markdown


def _outside(text: str) -> list[str]:
    return OUTSIDE.findall(text)
