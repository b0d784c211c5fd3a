"""What a site needs behind a proxy, in production: who the client is, health, sockets, figures.

A site that asks for none of it never imports this package. Must not know scripts, sessions or live
reload; a site is only asked for what it offers everybody.
"""
