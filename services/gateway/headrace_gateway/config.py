"""Settings of the gateway."""

from pathlib import Path

from pydantic import Field

from headrace_kit.settings import Address, ServiceSettings


class GatewaySettings(ServiceSettings):
    """The gateway's own: where it answers HTTP, and how a person enters."""

    grpc_listen: Address = Field(default="127.0.0.1:0", description="Not used: the gateway answers HTTP only.")
    http_listen: Address = Field(description="Where the console answers.")
    console_code_file: Path | None = Field(
        default=None, description="File with the one-time code of the console's link."
    )
    person_token_file: Path | None = Field(
        default=None, description="File with the token of the person who enters by the one-time link."
    )
    project: str = Field(default="default", description="Project the console shows.")
