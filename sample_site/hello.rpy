from rpyserve import html


def resource(request):
    return html("<h1>Hello {name}!</h1>", name=request.field("name", "world"))
