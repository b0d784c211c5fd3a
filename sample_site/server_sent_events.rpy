"""Server-sent events: a stream of text/event-stream, and a page that listens to it.

The page uses EventSource, which MDN describes. The generator below is cancelled as soon as the
visitor leaves; there is nothing to clean up.
"""

import time

import trio

from layout import page
from rpyserve import Response, html

CLOCK = """<p class="big" id="time">…</p>
<script>
const events = new EventSource("/server_sent_events?events")
events.onmessage = (event) => {{ document.getElementById("time").textContent = event.data }}
</script>
"""


async def events():
    while True:
        yield time.strftime("data: %H:%M:%S\n\n")
        await trio.sleep(1)


def resource(request):
    if request.query == "events":
        return Response(events(), headers={"Content-Type": "text/event-stream"})
    return page("Server-sent events", html(CLOCK), __file__)
