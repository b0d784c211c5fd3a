"""A script can import a module of the site: this one gets its lines from words.py."""

import random

from layout import page
from rpyserve import html
from words import BEGINNINGS, ENDINGS, MIDDLES


def resource(request):
    lines = html("<br>\n").join(
        html("{}", random.choice(lines)) for lines in (BEGINNINGS, MIDDLES, ENDINGS)
    )
    body = html('<p class="poem">{}</p>\n<p><a href="/import_module">Another poem</a></p>', lines)
    return page("A poem from a module", body, __file__)
