"""A run on a Dask cluster: the rows are Dask tasks, each asked once, and what is answered comes back at once.

The driver keeps the run as it always does: it renders the prompts, writes finished rows to its disk, holds the purse
and shows the progress. Only asking is done elsewhere. A row is a task, and no more rows are on their way than
`concurrency` says, so that a lost worker takes with it what it was being answered, and nothing else.

What a worker was answered is in the response cache of all before the ledger hears of it, and what became of its row
before the driver does. So whoever is given the row of a lost worker finds one of three things: what became of it, which
is handed on; that it was begun, which the driver hears, and decides whether it may be asked again; or nothing.

Tasks leave the worker's pool of threads while they wait (`secede`): how many rows a worker asks at once has nothing to
do with its cores. `parcel` is what travels, `worker` what runs there, `crew` the driver's side, `handed` what workers
leave for each other, and `common` and `fitness` find out whether all of them keep the same books.
"""
