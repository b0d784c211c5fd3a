"""From a save to the pages that show it: the watcher, the change feed, and the script in the page.

Must not know the protocol or the command line.
"""
