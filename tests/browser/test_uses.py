"""Two of the things that people build first, in real browsers: a front end with a dev server of its
own before the scripts, and a page of data with a plot.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from socket import SHUT_WR, create_connection, create_server, socket

import pytest
from playwright.sync_api import BrowserContext

from tests.support.browsers import expect, new_tab, open_tab, save, was_loaded_again
from tests.support.real_process import Server, free_port, program

pytestmark = [pytest.mark.browser, pytest.mark.process]

ROOT = Path(__file__).parent.parent.parent
VITE = ROOT / "build" / "vite" / "node_modules" / "vite" / "bin" / "vite.js"

# A front end with a dev server of its own

API = """\
def resource(request):
    session = request.getSession()
    session["n"] = session.get("n", 0) + 1
    return {"visits": session["n"], "text": "first"}
"""
ECHO = """\
from rpyserve import websocket


@websocket
async def resource(ws):
    async for message in ws:
        await ws.send(f"first {message}")
"""
INDEX = """\
<!DOCTYPE html>
<html lang="en">
<title>Front</title>
<h1>Front</h1>
<p id="visits"></p>
<p id="echo"></p>
<button id="ask">Ask</button>
<script type="module" src="/main.js"></script>
"""
MAIN = """\
async function ask() {
  const answer = await (await fetch("/api")).json()
  document.querySelector("#visits").textContent = `${answer.text} ${answer.visits}`
}
function connect() {
  const socket = new WebSocket(`ws://${location.host}/echo`)
  socket.onopen = () => socket.send("hello")
  socket.onmessage = ({ data }) => { document.querySelector("#echo").textContent = data }
  socket.onclose = ({ code }) => { document.querySelector("#echo").textContent = `closed ${code}` }
}
document.querySelector("#ask").onclick = ask
ask()
connect()
"""
SETTINGS = """\
export default {
  clearScreen: false,
  server: {
    proxy: {
      "/api": { target: "http://localhost:PORT", changeOrigin: CHANGE },
      "/echo": { target: "ws://localhost:PORT", ws: true, changeOrigin: CHANGE },
    },
  },
};
"""


@contextmanager
def vite(front: Path, backend: int, changes: bool) -> Iterator[str]:
    """Vite's dev server before the one at *backend*: its URL.

    Args:
        changes: with ``changeOrigin``.
    """
    node = shutil.which("node")
    if node is None or not VITE.exists():
        pytest.skip("there is no Vite here: npm install --prefix build/vite vite")
    settings = SETTINGS.replace("PORT", str(backend)).replace("CHANGE", str(changes).lower())
    save(front, "vite.config.mjs", settings)
    port = free_port()
    command = [node, str(VITE), str(front), "--host", "localhost", "--port", str(port)]
    with program([*command, "--strictPort"], front.parent / "vite", front) as server:
        server.expected_code = None
        server.wait_for("Local")  # in colour where CI is set
        yield f"http://localhost:{port}/"


@contextmanager
def stand_in(front: Path, backend: int, changes: bool) -> Iterator[str]:
    """What Vite does, where it is not installed: files of *front*, and a proxy for the rest."""
    listener = create_server(("localhost", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # it is closed
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(65536)):
                    return
                head += data
            path = head.split(b" ", 2)[1].decode()
            if path.startswith(("/api", "/echo")):
                forward(client, head)
                return
            name = path.partition("?")[0].lstrip("/") or "index.html"
            kind = "text/javascript" if name.endswith(".js") else "text/html"
            is_there = (front / name).is_file()
            body = (front / name).read_bytes() if is_there else b""
            status = "200 OK" if is_there else "404 Not Found"
            fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
            client.sendall(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)

    def forward(client: socket, head: bytes) -> None:
        if changes:
            head = re.sub(rb"(?im)^host:.*\r$", b"Host: localhost:%d\r" % backend, head)
        if b"Upgrade: websocket" not in head:
            head = re.sub(rb"(?im)^connection:.*\r$", b"Connection: close\r", head)
        with create_connection(("127.0.0.1", backend)) as upstream:
            upstream.sendall(head)
            back = threading.Thread(target=copy, args=(upstream, client), daemon=True)
            back.start()
            copy(client, upstream)
            back.join()

    def copy(source: socket, target: socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(SHUT_WR)
        except OSError:  # one side has gone
            target.close()

    with listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://localhost:{port}/"


FrontEnd = Callable[[Path, int, bool], AbstractContextManager[str]]
FRONT_ENDS = pytest.mark.parametrize("front_end", [vite, stand_in])


def save_site_and_front_end(root: Path, tmp_path: Path) -> Path:
    """Save the scripts of the site, and a front end that asks them; return its directory."""
    save(root, "api.rpy", API)
    save(root, "echo.rpy", ECHO)
    front = tmp_path / "front"
    save(front, "index.html", INDEX)
    save(front, "main.js", MAIN)
    return front


@FRONT_ENDS
def test_a_front_end_beside_it(
    root: Path, server: Server, context: BrowserContext, tmp_path: Path, front_end: FrontEnd
) -> None:
    """One origin for the browser: the session counts on, and edits of scripts are there with the next
    fetch and the next WebSocket.
    """
    front = save_site_and_front_end(root, tmp_path)
    with front_end(front, server.port, False) as url:
        page = new_tab(context)
        page.goto(url)
        expect(page.locator("#visits")).to_have_text("first 1")
        expect(page.locator("#echo")).to_have_text("first hello")
        page.click("#ask")
        expect(page.locator("#visits")).to_have_text("first 2")

        save(root, "api.rpy", API.replace("first", "second"))
        page.click("#ask")
        expect(page.locator("#visits")).to_have_text("second 3")
        save(root, "echo.rpy", ECHO.replace("first", "second"))
        save(front, "main.js", MAIN.replace("hello", "goodbye"))
        page.reload()
        expect(page.locator("#visits")).to_have_text(re.compile("second [45]"))
        expect(page.locator("#echo")).to_have_text("second goodbye")
        assert page.errors == []
        page.close()
    assert "403" not in server.output()


@FRONT_ENDS
def test_a_proxy_that_changes_the_host_seems_to_be_another_origin(
    root: Path, server: Server, context: BrowserContext, tmp_path: Path, front_end: FrontEnd
) -> None:
    front = save_site_and_front_end(root, tmp_path)
    with front_end(front, server.port, True) as url:
        page = new_tab(context)
        page.goto(url)
        expect(page.locator("#visits")).to_have_text("first 1")
        expect(page.locator("#echo")).to_have_text("closed 1006")
        server.wait_for("GET /echo 403 ")
        assert f"write origins=['{url.rstrip('/')}']" in server.output()
        assert "leave out its changeOrigin" in server.output()
        page.close()


# A page of data

DATA = """\
import csv
import io
from pathlib import Path

from markupsafe import Markup

from rpyserve import Response, html

from frames import Frame


def plot(rows):
    bars = [
        html('<rect x="{}" width="8" height="{}" class="first"/>', 10 * x, row)
        for x, row in enumerate(rows)
    ]
    return html('<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="90" fill="COLOUR">{}</svg>',
                10 * len(rows), html("").join(bars))


def resource(request):
    text = Path("prices.csv").read_text()
    rows = [int(row["price"]) for row in csv.DictReader(io.StringIO(text))]
    if "plot" in request.args:
        return Response(str(plot(rows)), headers={"Content-Type": "image/svg+xml"})
    frame = Frame(rows)
    return html('<h1>Prices</h1>{}<img id="plot" src="/data?plot=1">', Markup(frame._repr_html_()))
"""
FRAMES = """\
class Frame:
    def __init__(self, rows):
        self.rows = rows

    def _repr_html_(self):
        cells = "".join(f"<tr><td>{row}</td></tr>" for row in self.rows)
        return f"<table class='dataframe'>{cells}</table>"
"""
WIDTH = "document.querySelector('#plot').naturalWidth"


def test_a_page_of_data_whose_plot_follows(
    root: Path, server: Server, context: BrowserContext
) -> None:
    """The table and the picture, which the same script draws, follow the data and the script."""
    save(root, "prices.csv", "name,price\ntea,30\nmilk,20\n")
    save(root, "frames.py", FRAMES)
    save(root, "data.rpy", DATA)
    page = open_tab(context, f"{server.url}/data")
    expect(page.locator("table.dataframe")).to_have_text("3020")
    page.wait_for_function(f"{WIDTH} === 20")

    save(root, "prices.csv", "name,price\ntea,30\nmilk,20\njam,40\n")
    expect(page.locator("table.dataframe")).to_have_text("302040")
    page.wait_for_function(f"{WIDTH} === 30")

    save(root, "data.rpy", DATA.replace("10 * len(rows)", "20 * len(rows)"))
    page.wait_for_function(f"{WIDTH} === 60")
    save(root, "frames.py", FRAMES.replace("<td>{row}", "<td>{row},"))
    expect(page.locator("table.dataframe")).to_have_text("30,20,40,")
    assert not was_loaded_again(page)
    assert page.errors == []


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("_repr_html_", "returned a Frame. Write return it._repr_html_()."),
        ("to_html", "returned a Frame. Write return it.to_html()."),
    ],
)
def test_a_table_that_is_returned_as_it_is(
    root: Path, server: Server, context: BrowserContext, method: str, said: str
) -> None:
    save(root, "frames.py", FRAMES.replace("_repr_html_", method))
    script = "from frames import Frame\n\n\ndef resource(request):\n    return Frame([1, 2])"
    save(root, "data.rpy", f"{script}\n")
    page = open_tab(context, f"{server.url}/data")
    expect(page.locator("body")).to_contain_text(said)
    save(root, "data.rpy", f"{script}.{method}()\n")
    expect(page.locator("table.dataframe")).to_have_text("12")
