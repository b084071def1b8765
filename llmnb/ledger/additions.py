"""What some rows of calls add to the roll-ups: their sums by every key, the values they have, the buckets they fall in.

Column by column with numpy, in integers of 64 bits: a GROUP BY for each table took three times as long. Nothing here
knows a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from llmnb.ledger import sketch
from llmnb.ledger.measures import LATENCY, MEASURES, TTFT
from llmnb.ledger.rollups import BY_DAY, MISSING_VALUE, PEOPLE, SKETCHES, SLOTS
from llmnb.ledger.zones import SLOT_US

if TYPE_CHECKING:
    import numpy as np

    Integers = np.ndarray[Any, np.dtype[np.int64]]

Key = tuple[Any, ...]


def columns(sign: str = "", notebook: str = "notebook") -> str:
    """What is read of a row; `sign` is the column that holds -1 where the row is taken out, if there is one."""
    times = f"{sign} * " if sign else ""
    told = [sign or "1", "ts", LATENCY, TTFT, notebook, *PEOPLE.dimensions]
    return ", ".join([*told, *(f"{times}{value}" for value in MEASURES.values())])


UNTOLD = MISSING_VALUE
_BUCKETS = 1024  # more than `sketch.LAST_BUCKET`


@dataclass(slots=True)
class Counted:
    """How many values fell in which bucket: three columns, `code` is the place of the key in `Additions.sketched`."""

    code: Integers
    bucket: Integers
    count: Integers


@dataclass(slots=True)
class Additions:
    """The keys and sums to add to each table of sums; the keys of sketches and what latency and TTFT add to them."""

    sums: dict[str, list[Key]] = field(default_factory=dict[str, "list[Key]"])
    sketched: list[Key] = field(default_factory=list[Key])
    counted: tuple[Counted, Counted] | None = None
    values: set[tuple[str, str | bytes]] = field(default_factory=set["tuple[str, str | bytes]"])


def additions(rows: Sequence[Key], day_of: Callable[[int], int]) -> Additions:
    """What these rows of `columns` add up to; `day_of` is the midnight before a moment."""
    if not rows:
        return Additions()
    import numpy as np

    signs, times, latencies, ttfts, notebooks, *rest = zip(*rows, strict=True)
    groups, group = coded(zip(*rest[: len(PEOPLE.dimensions)], strict=True))
    groups = list(map(_stored_key, groups))
    measures = _matrix(rest[len(PEOPLE.dimensions) :])
    slots, slot = np.unique(np.array(times, np.int64) // SLOT_US * SLOT_US, return_inverse=True)
    days, day_of_slot = coded(map(day_of, slots.tolist()))
    day = day_of_slot[slot]
    found = Additions()
    width = len(groups)
    keys, people = _summed(day * width + group, measures)
    by_person: list[Key] = [(days[key // width], *groups[key % width]) for key in keys.tolist()]
    found.sums[PEOPLE.table] = _joined(by_person, people)
    for rollup in BY_DAY[:-1]:
        coarse, code = coded(_picked(by_person, PEOPLE.key, rollup.key))
        found.sums[rollup.table] = _joined(coarse, _summed(code, people)[1])
    kinds, kind = coded(_picked(groups, PEOPLE.dimensions, SLOTS.dimensions))
    keys, sums = _summed(slot * len(kinds) + kind[group], measures)
    by_slot = [(int(slots[key // len(kinds)]), *kinds[key % len(kinds)]) for key in keys.tolist()]
    found.sums[SLOTS.table] = _joined(by_slot, sums)
    _add_sketches(found, (latencies, ttfts), np.array(signs, np.int64), (days, day, groups, group))
    found.values = _values(groups, notebooks)
    return found


def _stored_key(values: Key) -> Key:
    return tuple([MISSING_VALUE if value is None else value for value in values])


def coded(values: Iterable[Any]) -> tuple[list[Any], Integers]:
    """The different values in the order they came up, and for each one its place among them."""
    import numpy as np

    places: dict[Any, int] = {}
    place = [places.setdefault(value, len(places)) for value in values]
    return list(places), np.array(place, np.int64)


def _matrix(columns: Sequence[Key]) -> Integers:
    """The measures of all rows, a row each; where a sum could pass 64 bits, in Python's integers, which have no end."""
    import numpy as np

    measures = np.array(columns, np.int64)
    most = np.abs(measures.astype(np.float64)).max() * measures.shape[1]
    return np.ascontiguousarray((measures if most < 2**62 else measures.astype(object)).T)


def _summed(codes: Integers, measures: Integers) -> tuple[Integers, Integers]:
    """The different codes in their order, and the sums of the rows of each."""
    import numpy as np

    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return ordered[begins], np.add.reduceat(measures[order], begins, axis=0)


def _joined(keys: Sequence[Key], sums: Integers) -> list[Key]:
    return [(*key, *values) for key, values in zip(keys, sums.tolist(), strict=True)]


def _picked(keys: Iterable[Key], names: Sequence[str], wanted: Sequence[str]) -> Iterable[Key]:
    places = [names.index(name) for name in wanted]
    return (tuple([key[place] for place in places]) for key in keys)


def _values(groups: Sequence[Key], notebooks: Iterable[str | bytes | None]) -> set[tuple[str, str | bytes]]:
    """The values of dimensions, also the missing one; a change does not tell its notebook, which is `UNTOLD`."""
    told = set(notebooks) - {UNTOLD}
    found = {("notebook", MISSING_VALUE if notebook is None else notebook) for notebook in told}
    for group in groups:
        found.update(zip(PEOPLE.dimensions, group, strict=True))
    return found


# Sketches -------------------------------------------------------------------------------------------------------------


def _add_sketches(
    found: Additions,
    columns: tuple[Sequence[float | None], Sequence[float | None]],
    signs: Integers,
    keys: tuple[list[int], Integers, list[Key], Integers],
) -> None:
    import numpy as np

    days, day, groups, group = keys
    kinds, kind = coded(_picked(groups, PEOPLE.dimensions, SKETCHES.dimensions))
    values = [np.array(column, np.float64) for column in columns]  # None is NaN in it
    there = [~np.isnan(column) for column in values]
    code = day * len(kinds) + kind[group]
    used = np.unique(code[there[0] | there[1]])
    code = np.searchsorted(used, code)  # what is not used is not looked at
    found.sketched = [(days[key // len(kinds)], *kinds[key % len(kinds)]) for key in used.tolist()]
    latency, ttft = (
        _counted(code[has], sketch.buckets_of(column[has]), signs[has])
        for column, has in zip(values, there, strict=True)
    )
    found.counted = latency, ttft


def _counted(code: Integers, bucket: Integers, count: Integers) -> Counted:
    if not len(code):
        return Counted(code, bucket, count)
    keys, counts = _summed(code * _BUCKETS + bucket, count)
    return Counted(keys // _BUCKETS, keys % _BUCKETS, counts)


def merged_sketches(found: Additions, stored: Callable[[Key], tuple[bytes, bytes] | None]) -> list[Key]:
    """The rows of the sketches as they are with what is added; `stored` gives the two sketches of a key on disk."""
    if not found.sketched or found.counted is None:
        return []
    there = [stored(key) or (b"", b"") for key in found.sketched]
    blobs = [_packed(counted, [pair[at] for pair in there]) for at, counted in enumerate(found.counted)]
    return [(*key, *pair) for key, *pair in zip(found.sketched, *blobs, strict=True)]


def _packed(added: Counted, stored: Sequence[bytes]) -> list[bytes]:
    """The bytes of every sketch with what is added to it; buckets without a count are left out."""
    import numpy as np

    pairs = np.frombuffer(b"".join(stored), sketch.PAIR)
    code = np.repeat(np.arange(len(stored)), [len(data) // sketch.PAIR_BYTES for data in stored])
    join = partial(np.concatenate, dtype=np.int64)
    all_ = _counted(
        join([code, added.code]), join([pairs["number"], added.bucket]), join([pairs["count"], added.count])
    )
    kept = all_.count != 0
    pairs = np.empty(int(kept.sum()), sketch.PAIR)
    pairs["number"], pairs["count"] = all_.bucket[kept], all_.count[kept]
    ends = np.searchsorted(all_.code[kept], np.arange(1, len(stored) + 1)) * sketch.PAIR_BYTES
    data, begins = pairs.tobytes(), [0, *ends.tolist()[:-1]]
    return [data[begin:end] for begin, end in zip(begins, ends.tolist(), strict=True)]
