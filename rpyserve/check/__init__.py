"""``rpyserve --check``: what is wrong with a site, found without executing any of it.

Owns the rules and their findings, and the notice on lost state that a running server logs. Files
are read and parsed; nothing of the site is imported. Must not know the server, the console or
sessions: `cli` prints the findings, and `serving` announces some of them.
"""
