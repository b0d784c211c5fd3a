"""One program a tool, each run by the Python that has the tool.

Each takes the rows as JSON on stdin (`before`, `make`, `after`, `check`), plays them, and prints on
the last line, as a JSON list, for each whether the check was true, or why it could not be asked.
"""
