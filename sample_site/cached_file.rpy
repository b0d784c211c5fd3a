"""cache() can name files and directories that a script reads.

When one of them changes, the script runs again.
"""

import random

from layout import page
from rpyserve import cache, html

cache("quotes.txt")

with open("quotes.txt", encoding="utf-8") as file:
    QUOTES = file.read().splitlines()


def resource(request):
    quote = html("<blockquote>{}</blockquote>", random.choice(QUOTES))
    note = html('<p>One of {} lines in <a href="/quotes.txt">quotes.txt</a>.</p>', len(QUOTES))
    return page("A cached file", quote + note, __file__)
