"""From an exception to what its author reads on the page and on the console, advice included.

Reads top down: `describe` makes an `ErrorReport` (`model`) of an exception, with excerpts of the
source, the values of variables, and advice. `reporter` writes it on the console, `error_page` on a
page. What must stay secret is removed where a report is made (`redaction`).

Must not know who calls it, or when.
"""
