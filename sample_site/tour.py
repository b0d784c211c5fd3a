"""What the pages of this tour have in common: the frame, and the script's own text below its result.

A plain Python module beside the scripts. They import it like any other; edit it, and their next answer has the edit.
"""

from pathlib import Path

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
<pre><code>{text}</code></pre>
</section>
"""


def opening(title):
    """The first part of a page, down to its heading."""
    return html(OPENING, title=title)


def closing(script=None):
    """The last part of a page. Shows the text of *script*, a path, if one is given."""
    end = html("</main>\n</body>\n</html>\n")
    if script is None:
        return end
    path = Path(script)
    return html(SOURCE, name=path.name, text=path.read_text(encoding="utf-8")) + end


def page(title, body, script=None):
    """A whole page. *body* is what `html` returned; text of any other kind is escaped."""
    return opening(title) + html("{}\n", body) + closing(script)
