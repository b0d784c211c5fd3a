"""The page of the server as a whole: what it does now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from rpyserve.inspector import blocks, session_pages
from rpyserve.util.html import html

if TYPE_CHECKING:
    from rpyserve.inspector.views import Data


def now(data: Data) -> Markup:
    """Return the page that is seen first."""
    sessions = data["sessions"]
    figures = blocks.figures(
        [
            ("live sessions", f"{sessions['live']:,}"),
            ("have ended", f"{sum(sessions['ended'].values()):,}"),
            ("running for", blocks.span(int(data["at"] - data["started"]))),
        ]
    )
    if sessions["used_last"]:
        live = session_pages.live_table(sessions["used_last"])
    else:
        live = session_pages.no_session()
    parts = [
        figures,
        blocks.section("Used last", live, note=_of(sessions["used_last"], sessions["live"])),
        blocks.section("Ended last", session_pages.ended_table(sessions["ended_last"])),
    ]
    return blocks.LINE.join(parts)


def _of(shown: list[Data], of: int) -> Markup | str:
    if len(shown) >= of:
        return ""
    return html('{} of <a href="/-/sessions">{}</a>', len(shown), blocks.count(of, "session"))
