"""Static findings about a site: nothing of it is executed.

Must not know the server or the console.
"""
