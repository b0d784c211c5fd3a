"""Plays the rows with Streamlit: a page that keeps an object in its session state."""

from common import play_all
from streamlit.testing.v1 import AppTest

PAGE = """\
import streamlit as st
{definitions}

if "kept" not in st.session_state:
    st.session_state["kept"] = {make}
else:
    kept = st.session_state["kept"]
    st.session_state["outcome"] = bool({check})
"""


def play(directory, number, row):
    path = directory / f"page{number}.py"
    page = {"make": row["make"], "check": row["check"]}
    path.write_text(PAGE.format(definitions=row["before"], **page))
    app = AppTest.from_file(str(path), default_timeout=20).run()
    path.write_text(PAGE.format(definitions=row["after"], **page))
    app.run()
    if app.exception:
        raise RuntimeError(app.exception[0].message)
    return app.session_state["outcome"]


play_all(play)
