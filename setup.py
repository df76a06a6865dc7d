"""Everything about the distribution stands in setup.cfg; this file exists for what setup.cfg cannot hold."""

import sys

from setuptools import Extension, setup

FOLDER = "binarize/kernels/c"
FILES = (
    "module",
    "checks",
    "dispatch",
    "plan",
    "classes",
    "convolve",
    "training",
    "floats",
    "digest",
    "threads",
    "avx512",
    "avx2",
    "neon",
    "scalar",
)
# Float results must not depend on whether the compiler fuses a multiplication and an addition; that it may compute
# both sides of a choice changes no result.
FLAGS = ["-std=gnu11", "-O3", "-g0", "-ffp-contract=off", "-fno-trapping-math", "-pthread"]

setup(
    ext_modules=[
        Extension(
            "binarize.kernels._native",
            sources=[f"{FOLDER}/{name}.c" for name in FILES],
            depends=[f"{FOLDER}/{name}.h" for name in ("kernels", "plan", "engine", "rows", "floats")],
            define_macros=[("Py_LIMITED_API", "0x030A0000")],
            extra_compile_args=[] if sys.platform == "win32" else FLAGS,
            py_limited_api=True,
            optional=True,  # without a compiler packed models run through plain torch
        )
    ]
)
