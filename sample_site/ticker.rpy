"""Server-sent events: a stream of text/event-stream, and a page that listens to it (see EventSource on MDN).

The function below is cancelled as soon as the visitor leaves; there is nothing to clean up.
"""

import time

import trio

from rpyserve import Response, html
from tour import page

LISTENER = """<p class="big" id="time">…</p>
<script>
new EventSource("/ticker?events").onmessage = (event) => {{ document.getElementById("time").textContent = event.data }}
</script>
"""


async def events():
    while True:
        yield time.strftime("data: %H:%M:%S\n\n")
        await trio.sleep(1)


def resource(request):
    if request.query == "events":
        return Response(events(), headers={"Content-Type": "text/event-stream"})
    return page("Ticker", html(LISTENER), __file__)
