"""Which objects belong to the server, even where a script's objects refer to them."""

from __future__ import annotations


class ServerObject:
    """Base of classes whose objects an edit of the site leaves alone.

    When classes of the site have changed, what sessions and the registry hold is changed, too. An
    object of the site may refer to its session, its request or the `Site`: those are not looked
    into, as they lead to everything else.
    """

    __slots__ = ()
