"""JSON that pages of other origins may read, because cors() allows it.

Otherwise browsers block them.
"""

import time

from rpyserve import cors


def now(request):
    return {"time": time.strftime("%H:%M:%S"), "origin": request.getHeader("origin")}


resource = cors(now, origins="*")
