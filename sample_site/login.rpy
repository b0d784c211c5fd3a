"""A login without passwords.

The session stores the name until it expires or the visitor logs out.
"""

from layout import page
from rpyserve import Redirect, Resource, html

FORM = """<p>Enter your name. There is no password: this page shows forms and sessions, not
security.</p>
<form method="post">
<label>Your name <input name="user" required maxlength="40" autocomplete="nickname"></label>
<button>Log in</button>
</form>
"""

WELCOME = """<p>Hello, <strong>{}</strong>. You can sign the
<a href="/guestbook">guestbook</a> now.</p>
<form method="post">
<button name="logout" value="yes">Log out</button>
</form>
"""


class Login(Resource):
    def render_GET(self, request):
        user = request.getSession().get("user")
        return page("Login", html(WELCOME, user) if user else html(FORM), __file__)

    def render_POST(self, request):
        session = request.getSession()
        if "logout" in request.args:
            session.pop("user", None)
        else:
            session["user"] = request.field("user").strip()[:40] or "Somebody"
        # Redirect after POST, so that reloading the page does not submit the form again.
        return Redirect("/login")


resource = Login()
