"""JSON that pages of any other origin may read, because cors() says so. Without it, browsers keep it from them."""

import time

from rpyserve import cors


def beacon(request):
    return {"time": time.strftime("%H:%M:%S"), "origin": request.getHeader("origin")}


resource = cors(beacon, origins="*")
