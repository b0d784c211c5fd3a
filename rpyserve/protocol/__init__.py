"""One HTTP/1.1 connection over any trio stream: strict input, h11, time limits, graceful stop.

Sees a function from `Request` to `Response`, and must not know sites, sessions or scripts.
"""
