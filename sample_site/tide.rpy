"""A task beside the site: it runs once, whoever visits, until the server stops or this script changes."""

import math

import trio

from rpyserve import background, cache, html, registry
from tour import page

cache()


@background
async def rise_and_fall():
    while True:
        registry["tide"] = math.sin(trio.current_time() / 10)
        await trio.sleep(0.1)


def resource(request):
    level = round(100 * registry.get("tide", 0))
    return page("Tide", html('<p class="big">{} cm</p>\n<p>Load the page again in a moment.</p>', level), __file__)
