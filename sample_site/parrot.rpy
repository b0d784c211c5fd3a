"""A WebSocket, and the page that opens it. WebSockets need wsproto: pip install 'rpyserve[websocket]'

The method is cancelled when the visitor leaves while it waits for something else than the next message.
"""

from rpyserve import WebSocketResource, html
from tour import page

CAGE = """<form id="say"><label>Say something <input name="text" autocomplete="off" required></label>
<button>Say it</button></form>
<p class="big" id="heard">…</p>
<script>
const socket = new WebSocket(location.href.replace(/^http/, "ws"))
const say = document.getElementById("say")
socket.onmessage = (event) => {{ document.getElementById("heard").textContent = event.data }}
say.onsubmit = (event) => {{ event.preventDefault(); socket.send(say.text.value); say.reset() }}
</script>
"""


class Parrot(WebSocketResource):
    def render_GET(self, request):
        return page("Parrot", html(CAGE), __file__)

    async def connected(self, socket):
        await socket.send("Hello!")
        async for message in socket:
            await socket.send(f"{message} {message}!")


resource = Parrot()
