"""``python -m headrace_registry``."""

from headrace_kit.app import run_service
from headrace_kit.settings import load
from headrace_registry.app import build
from headrace_registry.config import RegistrySettings

if __name__ == "__main__":
    settings = load(RegistrySettings)
    run_service("registry", settings, lambda: build(settings))
