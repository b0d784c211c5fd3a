"""Dynamic routes: /child_pages/2026/11 is created when it is requested.

The request walks down the tree, one segment of the path at a time: getChild of Calendar returns a
Year for "2026", getChild of that Year returns a Month for "11", and the Month, a leaf, renders the
page.
"""

import calendar

from layout import page
from rpyserve import HTTPError, Resource, cache, html

cache()


class Calendar(Resource):
    def getChild(self, name, request):
        if not name:
            return self  # the URL ends with a slash
        if name.isdecimal() and len(name) <= 4 and int(name) > 0:
            return Year(int(name))
        raise HTTPError(404, f"The calendar has the years 1 to 9999, but not {name!r}.")

    def render_GET(self, request):
        years = html(" ").join(
            html('<a href="/child_pages/{0}">{0}</a>', year) for year in range(2024, 2031)
        )
        body = html('<p class="years">{}</p><p>Any other year works too.</p>', years)
        return page("Calendar", body, __file__)


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
        item = '<li><a href="/child_pages/{}/{}">{}</a></li>\n'
        months = html("").join(
            html(item, self.year, month, calendar.month_name[month]) for month in range(1, 13)
        )
        body = html('<ol class="months">\n{}</ol>', months)
        return page(f"Calendar: {self.year}", body, __file__)


class Month(Resource):
    isLeaf = True

    def __init__(self, year, month):
        self.year = year
        self.month = month

    def render_GET(self, request):
        days = html("").join(html("<th>{}</th>", name) for name in calendar.day_abbr)
        weeks = html("").join(map(week, calendar.monthcalendar(self.year, self.month)))
        table = html('<table class="month">\n<tr>{}</tr>\n{}</table>', days, weeks)
        up = html('<p><a href="/child_pages/{0}">All of {0}</a></p>', self.year)
        return page(f"{calendar.month_name[self.month]} {self.year}", table + up, __file__)


def week(days):
    return html("<tr>{}</tr>\n", html("").join(html("<td>{}</td>", day or "") for day in days))


resource = Calendar()
