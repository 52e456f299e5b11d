"""Settings of the registry."""

from typing import Annotated

from pydantic import AfterValidator, Field

from headrace_kit.settings import StoreSettings
from headrace_kit.webhooks import Allowed


def _allowed(text: str) -> str:
    Allowed.parse(text)
    return text


class RegistrySettings(StoreSettings):
    """The registry's own settings, beside those of every service with a database."""

    webhook_allowed: Annotated[str, AfterValidator(_allowed)] = Field(
        default="",
        description="Hosts and networks that webhooks may lead to beside the internet: hooks.corp,10.1.0.0/16.",
    )
    webhook_attempts: int = Field(default=8, ge=1, le=100, description="Attempts before a delivery is a dead letter.")
    webhook_backoff_s: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Pause after the first failed attempt; each later one is four times as long.",
    )
    webhook_backoff_most_s: float = Field(
        default=3600.0, gt=0, le=86_400, description="Longest pause between two attempts."
    )
    webhook_timeout_s: float = Field(default=10.0, gt=0, le=120, description="Most seconds for one attempt.")
