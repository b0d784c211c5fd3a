"""A login without passwords: the session remembers the name, until it ends or the visitor leaves."""

from rpyserve import Redirect, Resource, html
from tour import page

FORM = """<p>Say who you are. There is no password here: this page shows forms, not secrecy.</p>
<form method="post">
<label>Your name <input name="user" required maxlength="40" autocomplete="nickname"></label>
<button>Log in</button>
</form>
"""

WELCOME = """<p>Hello, <strong>{}</strong>. You can sign the <a href="/guestbook">guestbook</a> now.</p>
<form method="post">
<button name="leave" value="yes">Log out</button>
</form>
"""


class Login(Resource):
    def render_GET(self, request):
        user = request.getSession().get("user")
        return page("Login", html(WELCOME, user) if user else html(FORM), __file__)

    def render_POST(self, request):
        session = request.getSession()
        if "leave" in request.args:
            session.pop("user", None)
        else:
            session["user"] = request.field("user").strip()[:40] or "Somebody"
        # A redirect after POST: loading the page again does not send the form again.
        return Redirect("/login")


resource = Login()
