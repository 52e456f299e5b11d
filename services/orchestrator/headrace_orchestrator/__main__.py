"""``python -m headrace_orchestrator``."""

from headrace_kit.app import run_service
from headrace_kit.settings import load
from headrace_orchestrator.app import build
from headrace_orchestrator.config import OrchestratorSettings

if __name__ == "__main__":
    settings = load(OrchestratorSettings)
    run_service("orchestrator", settings, lambda: build(settings))
