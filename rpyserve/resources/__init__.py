"""The resource tree, what render methods return, and ready-made resources.

The ready-made ones are authentication, CORS, virtual hosts, WSGI, a proxy and WebSockets. Must not
know files, scripts or sessions. `auth` also decides of which URLs of a site the server's own tools
may tell a visitor.
"""
