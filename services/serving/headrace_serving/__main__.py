"""``python -m headrace_serving``."""

from headrace_kit.app import run_service
from headrace_kit.settings import load
from headrace_serving.app import build
from headrace_serving.config import ServingSettings

if __name__ == "__main__":
    settings = load(ServingSettings)
    run_service("serving", settings, lambda: build(settings))
