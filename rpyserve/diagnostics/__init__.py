"""From an exception to what its author reads on the page and on the console, advice included.

Must not know who calls it, or when.
"""
