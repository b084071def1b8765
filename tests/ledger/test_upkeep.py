"""What upkeep may delete: never a call of the last 24 hours, at whatever hour it is asked."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llmnb.errors import InvalidRequest
from llmnb.ledger.upkeep import cutoff_us
from llmnb.settings import Settings

MIDNIGHT_US = int(datetime(2026, 11, 26, tzinfo=UTC).timestamp() * 1e6)
HOUR_US = 3_600_000_000
UTC_DAYS = Settings(timezone="UTC")


@pytest.mark.parametrize("hour", [0, 0.01, 0.5, 12, 23.99])
def test_less_than_a_day_is_refused_at_every_hour(hour: float) -> None:
    """Just after midnight an hour ago is yesterday; that is no reason to delete more than at noon."""
    now_us = MIDNIGHT_US + int(hour * HOUR_US)
    for older in ("1h", "23h", "2026-11-26"):
        with pytest.raises(InvalidRequest, match="give at least a day"):
            cutoff_us(UTC_DAYS, older, now_us)
    assert cutoff_us(UTC_DAYS, "1d", now_us) == MIDNIGHT_US - 24 * HOUR_US
    assert cutoff_us(UTC_DAYS, "2d", now_us) == MIDNIGHT_US - 48 * HOUR_US
