"""cache() may name the files and directories that a script has read: when one changes, it is executed again."""

import random

from rpyserve import cache, html
from tour import page

cache("sayings.txt")

with open("sayings.txt", encoding="utf-8") as file:
    SAYINGS = file.read().splitlines()


def resource(request):
    saying = html("<blockquote>{}</blockquote>", random.choice(SAYINGS))
    note = html('<p>One of {} lines of <a href="/sayings.txt">sayings.txt</a>.</p>', len(SAYINGS))
    return page("Sayings", saying + note, __file__)
