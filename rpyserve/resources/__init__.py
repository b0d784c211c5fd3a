"""The resource tree, what render methods return, and ready-made resources.

The ready-made ones are authentication, CORS, virtual hosts, WSGI, a proxy and WebSockets. Must not
know files, scripts or sessions. `auth` also has what decides which of a site's URLs the server's own
tools may tell a visitor of.
"""
