"""Executing ``.rpy`` files and the ``.py`` modules of the site that they import.

Owns how their code is compiled and when it is executed again, which definition of a class is the
current one, whether files have changed, and the tasks that scripts start. Must not know sessions,
static files, pages or advice.
"""
