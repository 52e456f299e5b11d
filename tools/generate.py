"""Generate the Python API from the protos: ``python tools/generate.py [--check]``.

``protos/headrace/api`` becomes ``headrace.api`` and ``protos/inference`` becomes ``headrace.inference``, both below
``libs/headrace``. The second keeps its proto package ``inference``: the wire names of the Open Inference Protocol
hang on it; only the file's virtual path, and with it the Python module, lies under ``headrace``.

The output depends on the protos and the locked compilers alone. Only files that changed are written, each at once, so a
running process never meets half a module. With ``--check`` nothing is written: if the tree differs, the stale files are
named and the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
TARGET = ROOT / "libs" / "headrace"
PACKAGES = ("headrace/api", "headrace/inference")
GENERATED_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi", "__init__.py")


def compile_protos(out: Path) -> None:
    """Run protoc over every proto, writing modules and stubs below ``out``.

    Raises:
        SystemExit: a proto does not compile; protoc has said why.
    """
    api = sorted(path.relative_to(PROTOS).as_posix() for path in (PROTOS / "headrace").rglob("*.proto"))
    inference = sorted(path.name for path in (PROTOS / "inference").glob("*.proto"))
    _protoc(out, proto_path=os.fspath(PROTOS), files=api)
    _protoc(
        out,
        proto_path=f"headrace/inference={PROTOS / 'inference'}",
        files=[f"headrace/inference/{name}" for name in inference],
    )
    for package in PACKAGES:
        _add_package_files(out / package)


def generated_files(base: Path) -> dict[str, bytes]:
    """The generated files below ``base`` by path relative to it."""
    found = (path for package in PACKAGES for path in (base / package).rglob("*") if path.is_file())
    return {
        path.relative_to(base).as_posix(): path.read_bytes() for path in found if path.name.endswith(GENERATED_SUFFIXES)
    }


def main() -> int:
    """Generate, or check; return the exit status."""
    parser = argparse.ArgumentParser(description="Generate the Python API from the protos.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the tree is not current")
    check: bool = parser.parse_args().check
    # protoc looks for mypy-protobuf's plugins on PATH.
    os.environ["PATH"] = os.pathsep.join([os.fspath(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        compile_protos(Path(folder))
        wanted = generated_files(Path(folder))
    current = generated_files(TARGET)
    stale = sorted(name for name in wanted.keys() | current.keys() if wanted.get(name) != current.get(name))
    if check:
        for name in stale:
            sys.stderr.write(f"not current, run `make gen` and commit: {(TARGET / name).relative_to(ROOT)}\n")
        return 1 if stale else 0
    for name in stale:
        _replace(TARGET / name, wanted.get(name))
    sys.stdout.write(f"{len(wanted)} files generated, {len(stale)} changed\n")
    return 0


def _protoc(out: Path, *, proto_path: str, files: list[str]) -> None:
    if not files:
        return
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{out}" for kind in ("mypy", "mypy_grpc")]
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{proto_path}", f"-I{well_known}", *outputs, *files]
    status: int = protoc.main(arguments)
    if status != 0:
        sys.exit(status)


def _add_package_files(package: Path) -> None:
    if package.is_dir():
        for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
            (folder / "__init__.py").touch()


def _replace(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
