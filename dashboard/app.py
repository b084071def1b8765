"""The frame around every page: the name, the look, the navigation."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
PAGES = [st.Page(HERE / "pages" / "overview.py", title="Overview", icon=":material/monitoring:", default=True)]

st.set_page_config(page_title="llmnb", page_icon=str(HERE / "mark.svg"), layout="wide")
st.html(HERE / "look.css")
st.logo(str(HERE / "logo.svg"), size="large")
st.navigation(PAGES, position="top").run()
