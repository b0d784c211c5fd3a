"""A JSON API. Try: curl localhost:8080/json_api --json '[1, 2, 3]'"""

from rpyserve import HTTPError, Resource


def is_list_of_numbers(value):
    return isinstance(value, list) and all(isinstance(number, (int, float)) for number in value)


class Sum(Resource):
    def render_GET(self, request):
        return {"usage": "POST a list of numbers as JSON"}

    def render_POST(self, request):
        numbers = request.json()
        if not is_list_of_numbers(numbers):
            raise HTTPError(400, "Send a list of numbers, such as [1, 2, 3].")
        return {"numbers": len(numbers), "sum": sum(numbers)}


resource = Sum()
