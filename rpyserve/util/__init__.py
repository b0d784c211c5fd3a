"""Small things that need no web server: throttled log lines, texts, exceptions, safe markup.

Must not know HTTP, scripts or sites.
"""
