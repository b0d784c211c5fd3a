"""From a save to the pages that show it.

Owns the watch on a site's directories, the feed of changes that browsers listen to, and the script
that is put into pages. Must not know the protocol, the check or the command line.

The order matters: modules that have changed are dropped first, then pages are told, so that no page
gets code that is older than the change it was told of.
"""
