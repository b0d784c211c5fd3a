"""A template beside the script: postcard.html.j2. Edit either.

Templates need Jinja2: pip install 'rpyserve[templates]'
"""

from rpyserve import html, template
from tour import page


def resource(request):
    try:
        card = template("postcard.html.j2", to=request.field("to", "Ada"), sights=["the harbour", "the <old> mill"])
    except ImportError as exc:
        card = html("<p>{}</p>", exc)
    return page("A postcard", card, __file__)
