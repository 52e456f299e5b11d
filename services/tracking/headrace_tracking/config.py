"""Settings of tracking."""

from headrace_kit.settings import StoreSettings


class TrackingSettings(StoreSettings):
    """Tracking needs what every service with a database needs."""
