"""An installed Twisted, in our loop: its resources are rendered here, with our sessions and pages.

Nothing of Twisted is written again. What a script imports from it is genuine; each module of this
package completes one of Twisted's when a script first imports that, by its ``adopt``: see
`scripts.twisted_names`. So a site without such a script loads nothing of this package.
"""
