"""Renders templates as one HTML file with escaped text, and with its own style and script and no others allowed."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent
MINUS = re.compile(r"(?<![\w.-])-(?=\d)")
HALVES = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs: text that was cut may contain one, and UTF-8 cannot encode it."""


def render(template: str, **content: Any) -> str:
    """Fills a template of the report.

    The policy in the page's head allows its own style and script, by their hashes, and nothing else: no request, and no
    script from a model's answer.

    Args:
        template: Name of the template.
        **content: The template's variables; text is escaped.
    """
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    text = page.render(style=Markup(style), script=Markup(script), policy=policy, **content) + "\n"
    return HALVES.sub("\ufffd", text)


def minus(text: str) -> str:
    """Replaces the hyphen before numbers with a proper minus sign; names keep their hyphens.

    Example:
        >>> minus("-6 % [-9.1, +2.0]"), minus("O-LoRA-2"), minus("-")
        ('\u22126 % [\u22129.1, +2.0]', 'O-LoRA-2', '-')
    """
    return MINUS.sub("\u2212", text)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["minus"] = minus
    environment.filters["per_cent"] = lambda share: f"{100 * share:.0f} %"
    return environment
