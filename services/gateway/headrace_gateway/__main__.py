"""``python -m headrace_gateway``."""

from headrace_gateway.app import build
from headrace_gateway.config import GatewaySettings
from headrace_kit.app import run_service
from headrace_kit.settings import load

if __name__ == "__main__":
    settings = load(GatewaySettings)
    run_service("gateway", settings, lambda: build(settings))
