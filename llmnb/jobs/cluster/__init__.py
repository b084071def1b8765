"""A run on a Dask cluster: the rows are Dask tasks, each asked once, and what is answered comes back at once.

The driver keeps the run as it always does: it renders the prompts, writes finished rows to its disk, holds the purse
and shows the progress. Only asking is done elsewhere. A row is a task, and no more rows are on their way than
`concurrency` says, so that a lost worker takes with it what it was being answered, and nothing else; Dask has another
worker ask those rows again. What a worker was answered is in the response cache of all before the worker says so:
should it die before the driver has heard, the row that is asked again is a hit.

Tasks leave the worker's pool of threads while they wait (`secede`): how many rows a worker asks at once has nothing to
do with its cores. `parcel` is what travels, `worker` what runs there, `crew` the driver's side, and `common` finds out
whether all of them keep the same books.
"""
