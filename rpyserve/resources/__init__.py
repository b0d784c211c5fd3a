"""The resource tree, what render methods return, and the ready-made resources: authentication, proxy, WSGI, WebSockets.

Must not know files, scripts or sessions.
"""
