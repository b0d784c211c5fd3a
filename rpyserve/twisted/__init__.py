"""What scripts and programs written for Twisted need, where Twisted is installed.

Nobody else imports this package, and nothing of Twisted is written again in it: it joins the
genuine one to the site, its sessions and its event loop. Must not know how bytes come from a
socket (`protocol`), nor the server (`serving`).
"""
