"""Settings of tracking."""

from datetime import timedelta

from pydantic import Field

from headrace_kit.settings import StoreSettings


class TrackingSettings(StoreSettings):
    """What every service with a database needs, and how long traces are kept."""

    traces_keep_days: float = Field(
        default=90.0, ge=0, le=36_500, description="Days that traces are kept after they began; 0 for ever."
    )

    @property
    def traces_keep(self) -> timedelta | None:
        """How long traces are kept; None for ever."""
        return timedelta(days=self.traces_keep_days) if self.traces_keep_days else None
