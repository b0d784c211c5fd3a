"""Listeners, and what one serving process needs: signals, console, access log, watchdog, `run` and
`serve`.

Must not know the options of the command line.
"""
