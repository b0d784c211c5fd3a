"""JSON in, JSON out. Try: curl localhost:8080/abacus --json '[1, 2, 3]'"""

from rpyserve import HTTPError, Resource


class Abacus(Resource):
    def render_GET(self, request):
        return {"send": "a POST with a list of numbers as JSON"}

    def render_POST(self, request):
        numbers = request.json()
        if not isinstance(numbers, list) or not all(isinstance(number, (int, float)) for number in numbers):
            raise HTTPError(400, "Send a list of numbers, such as [1, 2, 3].")
        return {"numbers": len(numbers), "sum": sum(numbers)}


resource = Abacus()
