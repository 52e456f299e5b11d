"""Settings of the orchestrator."""

from pydantic import Field

from headrace_kit.settings import StoreSettings


class OrchestratorSettings(StoreSettings):
    """What the orchestrator needs besides what every service with a database needs."""

    orchestrator_local_workers: int = Field(
        default=2, ge=0, le=1000, description="Steps that the worker of this machine runs at a time; 0 for no worker."
    )
    orchestrator_lease_s: float = Field(
        default=15.0, gt=0, le=600, description="Seconds that a worker may be silent before its steps are ended."
    )
