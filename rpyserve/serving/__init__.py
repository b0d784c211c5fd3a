"""`run` and `serve`, and what a process that serves needs: listeners, signals, console, logs.

Must not know the options of the command line.
"""
