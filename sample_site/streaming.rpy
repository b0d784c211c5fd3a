"""A streamed page: each piece that an async generator yields is sent at once.

It is plain trio. While it sleeps, other requests are served; when the visitor leaves, it is
cancelled.
"""

import trio

from layout import closing, opening
from rpyserve import html


async def resource(request):
    yield opening("Countdown")
    for number in range(5, 0, -1):
        yield html('<p class="tick">{} …</p>\n', number)
        await trio.sleep(0.5)
    yield html('<p class="big">Lift-off!</p>\n')
    yield closing(__file__)
