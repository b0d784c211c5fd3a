"""A background task: it starts once, not for each request.

It runs until the server stops or this script changes.
"""

import math

import trio

from layout import page
from rpyserve import background, cache, html, registry

cache()


@background
async def update_level():
    while True:
        registry["level"] = math.sin(trio.current_time() / 10)
        await trio.sleep(0.1)


def resource(request):
    level = round(100 * registry.get("level", 0))
    body = html('<p class="big">{} cm</p>\n<p>Reload the page: the level has changed.</p>', level)
    return page("Background task", body, __file__)
