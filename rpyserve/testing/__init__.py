"""A client for tests of scripts, sites and resources, that needs no socket and can move time.

Owns the clients, what they send and get, and the pytest plugin. Must not know the protocol or the serving process.
"""

from rpyserve.testing.client import Answer, AsyncClient, AsyncStreaming, Client, Headers, Sent, Streaming, Visitor

__all__ = ["Answer", "AsyncClient", "AsyncStreaming", "Client", "Headers", "Sent", "Streaming", "Visitor"]
