"""A guestbook: the registry stores what all visitors share, for as long as the server runs."""

import time

from layout import page
from rpyserve import Redirect, Resource, html, registry

FORM = """<form method="post">
<label>Your message <input name="text" required maxlength="200"></label>
<button>Sign as {}</button>
</form>
"""

ENTRY = "<li><p>{text}</p><small>{name}, at {time}</small></li>\n"


class Guestbook(Resource):
    def render_GET(self, request):
        name = request.getSession().get("user", "a stranger")
        entries = html("").join(html(ENTRY, **entry) for entry in registry.get("guestbook", []))
        body = html(FORM, name) + html('<ul class="book">\n{}</ul>', entries)
        if name == "a stranger":
            body += html('<p>After a <a href="/login">login</a>, you sign with your name.</p>')
        return page("Guestbook", body, __file__)

    def render_POST(self, request):
        text = request.field("text").strip()[:200]
        if text:
            name = request.getSession().get("user", "a stranger")
            book = registry.setdefault("guestbook", [])
            book.insert(0, {"text": text, "name": name, "time": time.strftime("%H:%M")})
            del book[50:]
        return Redirect("/guestbook")


resource = Guestbook()
