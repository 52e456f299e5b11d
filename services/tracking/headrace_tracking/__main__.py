"""``python -m headrace_tracking``."""

from headrace_kit.app import run_service
from headrace_kit.settings import load
from headrace_tracking.app import build
from headrace_tracking.config import TrackingSettings

if __name__ == "__main__":
    settings = load(TrackingSettings)
    run_service("tracking", settings, lambda: build(settings))
