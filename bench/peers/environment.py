"""The peers themselves: a virtual environment with torch, transformers and PEFT, and llama.cpp built from the source
package of llama-cpp-python. Everything comes from the Python package index and is kept in one folder."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

# What the figures in BENCHMARKS.md were taken with.
REQUIREMENTS = ["torch==2.15.*", "transformers==5.23.*", "peft==0.21.*", "safetensors", "numpy"]
LLAMA_CPP_PYTHON = "llama-cpp-python==0.3.36"
BUILD_TOOLS = ["cmake", "ninja"]
PROGRAMS = ["llama-server", "llama-batched-bench"]


def python_environment(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, made when it is not there."""
    python = folder / "venv" / "bin" / "python"
    if not (folder / "venv" / "complete").exists():
        run([sys.executable, "-m", "venv", folder / "venv"])
        run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS])
        (folder / "venv" / "complete").touch()
    return python


def llama_cpp(folder: Path) -> tuple[Path, Path]:
    """Folders of llama.cpp's programs and of its source, fetched and built when they are not there."""
    tools = folder / "build-tools"
    if not (tools / "complete").exists():
        run([sys.executable, "-m", "venv", tools])
        run([tools / "bin" / "python", "-m", "pip", "install", "--quiet", *BUILD_TOOLS])
        (tools / "complete").touch()
    packages = folder / "llama"
    sources = sorted(packages.glob("llama_cpp_python-*/vendor/llama.cpp"))
    if not sources:
        packages.mkdir(parents=True, exist_ok=True)
        # No metadata is built and no dependency looked at: only the archive is wanted.
        download = [tools / "bin" / "python", "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps"]
        run([*download, "--no-build-isolation", "-d", packages, LLAMA_CPP_PYTHON], PATH=f"{tools}/bin")
        for archive in packages.glob("llama_cpp_python-*.tar.gz"):
            with tarfile.open(archive) as opened:
                opened.extractall(packages, filter="data")
        sources = sorted(packages.glob("llama_cpp_python-*/vendor/llama.cpp"))
    source, build = sources[-1], packages / "build"
    if not all((build / "bin" / program).exists() for program in PROGRAMS):
        cmake = tools / "bin" / "cmake"
        flags = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF"]
        run([cmake, "-S", source, "-B", build, "-G", "Ninja", *flags], PATH=f"{tools}/bin")
        run([cmake, "--build", build, "--target", *PROGRAMS], PATH=f"{tools}/bin")
    return build / "bin", source


def run(command: list, **environment: str) -> None:
    """Shows what it does: these steps take minutes. A given PATH goes before the present one."""
    print("+", *command, file=sys.stderr, flush=True)
    given = dict(os.environ)
    if "PATH" in environment:
        environment["PATH"] += os.pathsep + given.get("PATH", "")
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr, env=given | environment)
