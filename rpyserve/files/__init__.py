"""From URL segments to files.

Owns directories, static files, conditional requests, templates, and what is never served. Must not
know sessions or live reload.
"""
