"""The page on which pairs are decided: one document with its own style and script, and nothing else allowed in it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lifealign.report.page.render import FOLDER as REPORT
from lifealign.report.page.render import HALVES

FOLDER = Path(__file__).parent


class Page(NamedTuple):
    """A document and what a browser may do with it.

    Attributes:
        content: HTML in UTF-8.
        policy: Its ``Content-Security-Policy``: the page's own style and script, requests to where it came from, and
            nothing else; no other site may frame it.
    """

    content: bytes
    policy: str


def review_page(file: str, out: Path) -> Page:
    """The page of a review. It holds no rows: the script asks for them, and shows them as text.

    Args:
        file: The file that is reviewed.
        out: The file of reviewed pairs.
    """
    # Colours, fonts and buttons are those of the report.
    style = (REPORT / "style.css").read_text("utf-8") + (FOLDER / "page.css").read_text("utf-8")
    script = (FOLDER / "page.js").read_text("utf-8")
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    text = template.render(style=Markup(style), script=Markup(script), file=file, out=str(out))
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(HALVES.sub("\ufffd", text).encode(), policy)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
