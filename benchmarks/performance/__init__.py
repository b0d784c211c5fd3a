"""Requests per second and CPU time per request, beside other servers."""
