"""An installed Twisted, in our loop: its resources are rendered here, with our sessions and pages.

Nothing of Twisted is written again. What a script imports from it is genuine; some modules of this
package complete one of Twisted's when a script first imports that, by their ``adopt``: see
`scripts.twisted_names`. So a site without such a script loads nothing of this package. Must not
know how bytes come from a socket (`protocol`), nor the server (`serving`).
"""
