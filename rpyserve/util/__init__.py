"""Small things that need no web server: throttled log lines, durations, exceptions, safe markup.

Must not know HTTP, scripts or sites.
"""
