"""Messages as values: requests, responses, cookies, forms, hosts and errors, and what RFC 9110 says of them.

Must not know sockets, h11, files or sites.
"""
