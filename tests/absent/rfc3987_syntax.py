"""Stands before the package of this name: jsonschema works without it, and with it takes 1.6 s of CPU to import.

It builds 38 parsers, for the formats "iri" and "iri-reference", of which nothing here makes use. JupyterLab, nbconvert
and Streamlit's charts import jsonschema, and the tests start some dozens of them.
"""

raise ImportError("left out of tests for the time that it takes")
