"""A simulated Messages API on a loopback port: real HTTP, real SDK, no key, no network, no model.

```python
from llmnb.simulator import Simulator
with Simulator(seed=1) as sim:
    client = sim.client()                      # a real anthropic.Anthropic
    sim.fail("overloaded")                     # the next attempt gets a 529
    client.messages.create(model="claude-sonnet-5-5", max_tokens=200, messages=[{"role": "user", "content": "Hi"}])
    sim.billed().price_nanousd                 # what the provider would charge, computed on its own
```

Names are imported on first use, so that a pytest plugin can name this package and cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmnb.simulator.answer import Answer as Answer
    from llmnb.simulator.answer import SeenRequest as SeenRequest
    from llmnb.simulator.billing import BilledTotal as BilledTotal
    from llmnb.simulator.billing import BillingRecord as BillingRecord
    from llmnb.simulator.billing import IterationBill as IterationBill
    from llmnb.simulator.clock import Clock as Clock
    from llmnb.simulator.fault import Fault as Fault
    from llmnb.simulator.limits import Limits as Limits
    from llmnb.simulator.server import Simulator as Simulator

_HOME = {
    "Answer": "answer",
    "BilledTotal": "billing",
    "BillingRecord": "billing",
    "Clock": "clock",
    "Fault": "fault",
    "IterationBill": "billing",
    "Limits": "limits",
    "SeenRequest": "answer",
    "Simulator": "server",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
