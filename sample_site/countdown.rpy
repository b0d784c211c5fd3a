"""A page that arrives line by line: an async generator is sent as it yields.

It is plain trio. While it sleeps, everybody else is served; when the visitor goes away, it is cancelled.
"""

import trio

from rpyserve import html
from tour import closing, opening


async def resource(request):
    yield opening("Countdown")
    for number in range(5, 0, -1):
        yield html('<p class="tick">{} …</p>\n', number)
        await trio.sleep(0.5)
    yield html('<p class="big">Lift-off!</p>\n')
    yield closing(__file__)
