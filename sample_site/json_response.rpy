"""A JSON response: a dict or a list is sent as JSON."""

import platform
import time


def resource(request):
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "sessions": len(request.site.sessions),
        "python": platform.python_version(),
        "request": {"method": request.method, "path": request.path, "query": request.args},
    }
