"""The ledger: every call on the books, in one SQLite file that many processes write and anybody reads.

`migrations` and `connection` make and open the file; `writer`, `spool` and `bookkeeping` write it; `rows` and `totals`
read it.
"""

from llmnb.ledger.bookkeeping import Books as Books
from llmnb.ledger.choices import choices as choices
from llmnb.ledger.choices import is_empty as is_empty
from llmnb.ledger.filters import DIMENSIONS as DIMENSIONS
from llmnb.ledger.forecast import Forecast as Forecast
from llmnb.ledger.forecast import month_end as month_end
from llmnb.ledger.latencies import LATENCY_COLUMNS as LATENCY_COLUMNS
from llmnb.ledger.latencies import latencies as latencies
from llmnb.ledger.reach import newest_from as newest_from
from llmnb.ledger.rows import CALL_COLUMNS as CALL_COLUMNS
from llmnb.ledger.rows import calls as calls
from llmnb.ledger.shelf import books as books
from llmnb.ledger.shelf import settle as settle
from llmnb.ledger.sql import Store as Store
from llmnb.ledger.totals import TOTAL_COLUMNS as TOTAL_COLUMNS
from llmnb.ledger.totals import usage as usage
from llmnb.ledger.unread import UNREAD_COLUMNS as UNREAD_COLUMNS
from llmnb.ledger.unread import unread_writes as unread_writes
from llmnb.ledger.writer import Ledger as Ledger
from llmnb.ledger.writer import new_ledger as new_ledger
from llmnb.ledger.writer import open_ledger as open_ledger

__all__ = [
    "CALL_COLUMNS",
    "DIMENSIONS",
    "LATENCY_COLUMNS",
    "TOTAL_COLUMNS",
    "UNREAD_COLUMNS",
    "Books",
    "Forecast",
    "Ledger",
    "Store",
    "books",
    "calls",
    "choices",
    "is_empty",
    "latencies",
    "month_end",
    "new_ledger",
    "newest_from",
    "open_ledger",
    "settle",
    "unread_writes",
    "usage",
]
