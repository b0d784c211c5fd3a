"""Two sites behind one address: which one answers goes by the host name. All names below localhost lead here.

As the root of a site in Python, NameVirtualHost parts whole sites from each other; here it parts two pages.
"""

from rpyserve import NameVirtualHost, cache, html
from tour import page

cache()


def twin(name, other):
    def answer(request):
        link = f"//{other}.localhost:{request.server[1]}/twins"
        return page(f"I am {name}", html('<p>My twin is <a href="{}">{}</a>.</p>', link, other), __file__)

    return answer


resource = NameVirtualHost(twin("castor", "pollux"))
resource.addHost("pollux.localhost", twin("pollux", "castor"))
