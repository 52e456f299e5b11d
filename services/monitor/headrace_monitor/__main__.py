"""``python -m headrace_monitor``."""

from headrace_kit.app import run_service
from headrace_kit.settings import load
from headrace_monitor.app import build
from headrace_monitor.config import MonitorSettings

if __name__ == "__main__":
    settings = load(MonitorSettings)
    run_service("monitor", settings, lambda: build(settings))
