"""Where sessions and the registry are kept outside of the process, and what brings them back.

Must not know cookies, the console, or how a server listens.
"""
