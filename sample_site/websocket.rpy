"""A WebSocket, and the page that opens it.

When the visitor leaves, the loop over messages ends. WebSockets need wsproto:
pip install wsproto
"""

from layout import page
from rpyserve import WebSocketResource, html

FORM = """<form id="send"><label>Message <input name="text" autocomplete="off" required></label>
<button>Send</button></form>
<p class="big" id="reply">…</p>
<script>
const socket = new WebSocket(location.href.replace(/^http/, "ws"))
const form = document.getElementById("send")
socket.onmessage = (event) => {{ document.getElementById("reply").textContent = event.data }}
form.onsubmit = (event) => {{ event.preventDefault(); socket.send(form.text.value); form.reset() }}
</script>
"""


class Echo(WebSocketResource):
    def render_GET(self, request):
        return page("WebSocket", html(FORM), __file__)

    async def connected(self, socket):
        await socket.send("Connected.")
        async for message in socket:
            await socket.send(f"You sent: {message}")


resource = Echo()
