"""The layout that the pages of this tour share: a header, a footer, and the script's source.

A plain Python module next to the scripts, which import it like any other. After an edit, their next
response uses it.
"""

from pathlib import Path

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from rpyserve import html

OPENING = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/images/leaf.svg">
<link rel="stylesheet" href="/style.css">
</head>
<body>
<nav><a href="/"><img src="/images/leaf.svg" alt="" width="22" height="22">The tour</a></nav>
<main>
<h1>{title}</h1>
"""

SOURCE = """<section class="source">
<h2>{name}</h2>
<pre tabindex="0"><code>{text}</code></pre>
</section>
"""


def opening(title):
    """The beginning of a page, down to its heading."""
    return html(OPENING, title=title)


def coloured(source):
    """Python source as markup, with colours that style.css chooses."""
    return Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)))


def closing(script=None):
    """The end of a page. Shows the source of *script*, a path, if one is given."""
    end = html("</main>\n</body>\n</html>\n")
    if script is None:
        return end
    path = Path(script)
    return html(SOURCE, name=path.name, text=coloured(path.read_text(encoding="utf-8"))) + end


def page(title, body, script=None):
    """A whole page. *body* is escaped unless it was returned by `html`."""
    return opening(title) + html("{}\n", body) + closing(script)
