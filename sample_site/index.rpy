"""The start page of the tour: a list of links, and a page made from it."""

from layout import page
from rpyserve import cache, html

cache()

TOUR = [
    (
        "First steps",
        [
            ("/hello?name=Ada", "hello.rpy",
             "A page in five lines: a function that takes the request. Change the name in the "
             "query string."),
            ("/session", "session.rpy",
             "A session is a mapping that stores values for one visitor."),
        ],
    ),
    (
        "Sessions",
        [
            ("/counter", "counter.rpy",
             "The visit counter of the series: one object for each visitor, found by an "
             "interface. Load it a few times, then once in a private window."),
            ("/counter_uncached", "counter_uncached.rpy",
             "The same without cache(). It never gets past 1, and explains why."),
            ("/session_expiry", "session_expiry.rpy",
             "A callback that runs when the session expires. Open it, stay away, and watch the "
             "console."),
            ("/login", "login.rpy",
             "A form, a redirect after it, and a name stored in the session."),
            ("/guestbook", "guestbook.rpy",
             "The registry stores what all visitors share. Try to enter some HTML."),
        ],
    ),
    (
        "Routes and static files",
        [
            ("/child_pages/2026/11", "child_pages.rpy",
             "Dynamic routes: getChild is called for each segment of the path."),
            ("/404", "404.rpy",
             "The site's own 404 page. Try any other URL that does not exist."),
            ("/images/", "images/",
             "A directory without an index page shows a listing. Its files are static files."),
        ],
    ),
    (
        "Uploads and JSON",
        [
            ("/upload", "upload.rpy",
             "A form with a file upload of any size."),
            ("/json_api", "json_api.rpy",
             "A JSON API: request.json() reads the body and reports errors in it."),
            ("/json_response", "json_response.rpy",
             "Return a dict or a list to send JSON."),
        ],
    ),
    (
        "Streams and background tasks",
        [
            ("/streaming", "streaming.rpy",
             "An async generator sends a page piece by piece. Other visitors are served in "
             "between."),
            ("/server_sent_events", "server_sent_events.rpy",
             "Server-sent events: the script sends updates to an open page."),
            ("/websocket", "websocket.rpy",
             "A WebSocket, and the page that opens it."),
            ("/background_task", "background_task.rpy",
             "A task that runs in the background, and restarts when its script changes."),
        ],
    ),
    (
        "Templates, modules and cache()",
        [
            ("/template?to=Grace", "template.rpy",
             "A Jinja template next to the script."),
            ("/import_module", "import_module.rpy",
             "A script that imports words.py from the site. Edit either of them, and the page "
             "refreshes."),
            ("/cached_file", "cached_file.rpy",
             "cache() can name files: the script runs again when quotes.txt has changed."),
        ],
    ),
    (
        "Other servers and applications",
        [
            ("/basic_auth", "basic_auth.rpy",
             "A directory behind a password: log in as ada, password lovelace."),
            ("/wsgi/some/path", "wsgi.rpy",
             "A WSGI application, such as one made with Flask or Django."),
            ("/proxy?name=Grace", "proxy.rpy",
             "A reverse proxy that forwards requests to an upstream server."),
            ("/cors", "cors.rpy",
             "CORS: JSON that pages of other origins may read."),
            ("/virtual_hosts", "virtual_hosts.rpy",
             "Virtual hosts: the host name in the URL selects the page."),
        ],
    ),
]  # fmt: skip

INTRODUCTION = """<img class="banner" src="/images/hills.svg" width="880" height="220"
alt="Hills under a morning sky">
<p class="lead">Each page here is made by a Python file in this directory. Read the script below its
output, open the file in your editor, change a word, and save: the page refreshes by itself. You do
not have to restart the server, and your session is kept.</p>
"""


def links(entries):
    item = '<li><a href="{}"><code>{}</code></a><p>{}</p></li>\n'
    return html("").join(html(item, url, name, text) for url, name, text in entries)


SECTIONS = html("").join(
    html('<h2>{}</h2>\n<ul class="cards">\n{}</ul>\n', title, links(entries))
    for title, entries in TOUR
)


def resource(request):
    return page("A tour of resource scripts", html(INTRODUCTION) + SECTIONS)
