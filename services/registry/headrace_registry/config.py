"""Settings of the registry."""

from headrace_kit.settings import StoreSettings


class RegistrySettings(StoreSettings):
    """The registry needs what every service with a database needs."""
