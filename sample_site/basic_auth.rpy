"""A directory behind a password, with HTTP basic authentication. Log in as ada, password lovelace.

The directory's own name begins with a dot, so it cannot be reached in any other way.
"""

from rpyserve import BasicAuth, Directory, cache

cache()

resource = BasicAuth(Directory(".members"), {"ada": "lovelace"}, realm="Members only")
