"""Virtual hosts: the host name in the URL selects the page.

All names below localhost lead to this machine. As the root of a site in Python, NameVirtualHost
serves several whole sites; here it selects one of two pages.
"""

from layout import page
from rpyserve import NameVirtualHost, cache, html

cache()


def host(name, other):
    def respond(request):
        link = f"//{other}.localhost:{request.server[1]}/virtual_hosts"
        body = html('<p>The other host is <a href="{}">{}</a>.</p>', link, other)
        return page(f"This is {name}", body, __file__)

    return respond


resource = NameVirtualHost(host("blog", "shop"))
resource.addHost("shop.localhost", host("shop", "blog"))
