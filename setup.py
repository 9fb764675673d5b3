"""Builds csrc/: the C++ data engine always, the CUDA kernels where nvcc is. Metadata is in pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
ARCHITECTURES = ("80", "90")  # A100, H100 and H200; the last also as PTX for what comes after


class BuildExtensions(build_ext):
    """C++ by the compiler of this Python, CUDA by nvcc into a plain shared library; torch is not needed."""

    def run(self) -> None:
        super().run()
        self.build_cuda()

    def build_cuda(self) -> None:
        """Compile csrc/*.cu to megatron_distill/_cuda.so; without nvcc, or if it fails, GPUs use torch instead."""
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            print("nvcc not found: CUDA kernels are left out")
            return
        root = HERE if self.inplace or self.editable_mode else Path(self.build_lib)
        target = root / "megatron_distill" / "_cuda.so"
        target.parent.mkdir(parents=True, exist_ok=True)
        codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
        codes.append(f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}")
        sources = sorted(map(str, (HERE / "csrc").glob("*.cu")))
        command = [nvcc, "-O3", "-shared", "-Xcompiler", "-fPIC", "-cudart", "static", *codes, "-o", str(target)]
        if subprocess.run([*command, *sources]).returncode != 0:
            print("nvcc failed: CUDA kernels are left out")


setup(
    ext_modules=[
        Pybind11Extension(
            "megatron_distill._csrc",
            sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").glob("*.cpp")),
            depends=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").glob("*.h")),
            cxx_std=17,
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
        )
    ],
    cmdclass={"build_ext": BuildExtensions},
)
