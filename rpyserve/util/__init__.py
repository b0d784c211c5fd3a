"""Small things that need no web server: throttled log lines, durations, limits of open files, safe markup.

Must not know HTTP, scripts or sites.
"""
