"""A tree of pages that nobody has written down: /almanac/2026/11 is made when it is asked for.

The request walks down the tree, one part of the address at a time: Almanac is asked for its child "2026",
the Year that it returns for its child "11", and the Month, a leaf, answers.
"""

import calendar

from rpyserve import HTTPError, Resource, cache, html
from tour import page

cache()


class Almanac(Resource):
    def getChild(self, name, request):
        if not name:
            return self  # the address ends in a slash
        if name.isdecimal() and len(name) <= 4 and int(name) > 0:
            return Year(int(name))
        raise HTTPError(404, f"The almanac has the years 1 to 9999, but not {name!r}.")

    def render_GET(self, request):
        years = html(" ").join(html('<a href="/almanac/{0}">{0}</a>', year) for year in range(2024, 2031))
        return page("Almanac", html('<p class="years">{}</p><p>Any other year will do.</p>', years), __file__)


class Year(Resource):
    def __init__(self, year):
        self.year = year

    def getChild(self, name, request):
        if not name:
            return self
        if name in {str(month) for month in range(1, 13)}:
            return Month(self.year, int(name))
        raise HTTPError(404, f"A year has the months 1 to 12, but not {name!r}.")

    def render_GET(self, request):
        item = '<li><a href="/almanac/{}/{}">{}</a></li>\n'
        months = html("").join(html(item, self.year, month, calendar.month_name[month]) for month in range(1, 13))
        return page(f"Almanac: {self.year}", html('<ol class="months">\n{}</ol>', months), __file__)


class Month(Resource):
    isLeaf = True

    def __init__(self, year, month):
        self.year = year
        self.month = month

    def render_GET(self, request):
        days = html("").join(html("<th>{}</th>", name) for name in calendar.day_abbr)
        weeks = html("").join(map(week, calendar.monthcalendar(self.year, self.month)))
        table = html('<table class="month">\n<tr>{}</tr>\n{}</table>', days, weeks)
        up = html('<p><a href="/almanac/{0}">All of {0}</a></p>', self.year)
        return page(f"{calendar.month_name[self.month]} {self.year}", table + up, __file__)


def week(days):
    return html("<tr>{}</tr>\n", html("").join(html("<td>{}</td>", day or "") for day in days))


resource = Almanac()
