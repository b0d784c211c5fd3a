"""Requests, responses, cookies, forms, hosts and errors as values, by RFC 9110.

Must not know sockets, h11, files or sites.
"""
