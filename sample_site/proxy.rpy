"""A reverse proxy.

The upstream server here is this site itself; replace the URL with that of a real one.
`resource = ReverseProxyResource("http://127.0.0.1:5000")` forwards all requests below this URL,
WebSockets included. A proxy needs httpx: pip install httpx
"""

from rpyserve import ReverseProxyResource


def resource(request):
    host, port = request.server
    return ReverseProxyResource(f"http://{host}:{port}/hello").render(request)
