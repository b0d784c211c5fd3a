"""Executing ``.rpy`` files and the site's modules: which definition is current, and whether files have changed.

Must not know sessions, static files, pages or advice.
"""
