"""A Jinja template next to the script: template.html.j2. Edit either of them.

Templates need Jinja2: pip install Jinja2
"""

from layout import page
from rpyserve import html, template

SIGHTS = ["the harbour", "the <old> mill"]


def resource(request):
    try:
        card = template("template.html.j2", to=request.field("to", "Ada"), sights=SIGHTS)
    except ImportError as exc:  # Jinja2 is not installed
        card = html("<p>{}</p>", exc)
    return page("Template", card, __file__)
