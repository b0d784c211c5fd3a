"""A script may import a module from the site: this one takes its words from words.py."""

import random

from rpyserve import html
from tour import page
from words import DEEDS, ENDS, SKIES


def resource(request):
    lines = html("<br>\n").join(html("{}", random.choice(lines)) for lines in (SKIES, DEEDS, ENDS))
    return page("Poem", html('<p class="poem">{}</p>\n<p><a href="/poem">Another one</a></p>', lines), __file__)
