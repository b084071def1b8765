"""The ledger in PostgreSQL, for a team: the same rows, queries and budgets as in a file of SQLite.

`dialect` says SQLite's SQL in PostgreSQL's words, `connection` runs it, `migrations` make the tables, `ledger` writes.
"""
