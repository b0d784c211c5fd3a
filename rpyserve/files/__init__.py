"""From URL segments to files: directories, static files, templates, what is never served, conditional requests.

Must not know sessions or live reload.
"""
