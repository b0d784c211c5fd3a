"""A guard in front of a directory: the browser asks for a name and a password. Try ada and lovelace.

The directory's own name begins with a dot, so there is no other way into it.
"""

from rpyserve import BasicAuth, Directory, cache

cache()

resource = BasicAuth(Directory(".members"), {"ada": "lovelace"}, realm="The members' room")
