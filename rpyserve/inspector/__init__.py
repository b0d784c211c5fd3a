"""What the server itself offers to a site's author in the browser, below ``/-/``.

Nothing of it is there in production. Must not know how a server listens, nor live reload.
"""
