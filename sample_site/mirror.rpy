"""A page that another server makes. Here that is this very site; put the address of a real backend in its place.

With `resource = ReverseProxyResource("http://127.0.0.1:5000")` all that is below this address is passed on, and so
are WebSockets. A proxy needs httpx: pip install 'rpyserve[proxy]'
"""

from rpyserve import ReverseProxyResource


def resource(request):
    host, port = request.server
    return ReverseProxyResource(f"http://{host}:{port}/hello").render(request)
