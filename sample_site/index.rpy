"""The entrance of the tour: a list of links, and a page made of it."""

from rpyserve import cache, html
from tour import page

cache()

TOUR = [
    (
        "First steps",
        [
            ("/hello?name=Ada", "hello.rpy", "A page in five lines: a function of the request, as a resource. "
             "Change the name in the address."),
            ("/visits", "visits.rpy", "A session is a mapping. It keeps what you put into it for as long as the "
             "visitor keeps coming."),
        ],
    ),
    (
        "Sessions",
        [
            ("/counter", "counter.rpy", "The visit counter of the series: an object for each visitor, found by an "
             "interface. Load it a few times, then once more in a private window."),
            ("/counter_uncached", "counter_uncached.rpy", "The same without cache(). It never gets past one, "
             "and says why."),
            ("/logme", "logme.rpy", "Something to do when a session ends. Visit it, stay away, and watch the console."),
            ("/login", "login.rpy", "A form, a redirect after it, and a name that the session remembers."),
            ("/guestbook", "guestbook.rpy", "What all visitors share lives in the registry. Try to sign with "
             "some HTML."),
        ],
    ),
    (
        "Addresses",
        [
            ("/almanac/2026/11", "almanac.rpy", "A tree of pages made on demand: getChild is asked for each "
             "part of the address."),
            ("/404", "404.rpy", "The site's own page for whatever it does not have. Try any other address."),
            ("/images/", "images/", "A directory without an index is listed. The files in it are served as they are."),
        ],
    ),
    (
        "What visitors send",
        [
            ("/parcel", "parcel.rpy", "A form with a file, which may be as large as you like."),
            ("/abacus", "abacus.rpy", "JSON in, JSON out: request.json() reads it, and says what is wrong with it."),
        ],
    ),
    (
        "Around other resources",
        [
            ("/members", "members.rpy", "A guard in front of a directory: name ada, password lovelace."),
            ("/relic/of/old", "relic.rpy", "A WSGI application, such as one of Flask or Django, mounted as it is."),
            ("/mirror?name=Grace", "mirror.rpy", "A page that another server makes: a reverse proxy."),
            ("/beacon", "beacon.rpy", "JSON that pages of other origins may read."),
            ("/twins", "twins.rpy", "Two sites behind one address: the host name decides."),
        ],
    ),
    (
        "Answers of other kinds",
        [
            ("/status", "status.rpy", "Return a dict or a list, and it is sent as JSON."),
            ("/countdown", "countdown.rpy", "An async generator is sent line by line, while it yields. "
             "Other visitors are served in between."),
            ("/ticker", "ticker.rpy", "Server-sent events: a page that listens while the script goes on talking."),
            ("/parrot", "parrot.rpy", "A WebSocket, and the page that opens it."),
            ("/tide", "tide.rpy", "A task that runs beside the site, and starts anew when its script changes."),
        ],
    ),
    (
        "Scripts and their surroundings",
        [
            ("/poem", "poem.rpy", "A script imports words.py from the site. Edit either: the page follows."),
            ("/postcard?to=Grace", "postcard.rpy", "A template beside the script, by Jinja2."),
            ("/sayings", "sayings.rpy", "cache() may name files: the script is executed again when "
             "sayings.txt has changed."),
        ],
    ),
]  # fmt: skip

INTRODUCTION = """<img class="banner" src="/images/hills.svg" alt="Hills under a morning sky" width="880" height="220">
<p class="lead">Each page here is made by a Python file of this directory. Read the script below its result, open the
file in your editor, change a word, and save it: the page follows. There is nothing to restart, and you keep your
session.</p>
"""


def listed(entries):
    item = '<li><a href="{}"><code>{}</code></a><p>{}</p></li>\n'
    return html("").join(html(item, address, name, text) for address, name, text in entries)


SECTIONS = html("").join(
    html('<h2>{}</h2>\n<ul class="cards">\n{}</ul>\n', title, listed(entries)) for title, entries in TOUR
)


def resource(request):
    return page("A tour of resource scripts", html(INTRODUCTION) + SECTIONS)
