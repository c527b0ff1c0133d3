"""For pip: `pip install ./python`, where pkg-config finds ndio."""
import pathlib
import shlex
import subprocess

from setuptools import Extension, setup

HERE = pathlib.Path(__file__).resolve().parent


def ask_pkg_config(what):
    run = subprocess.run(["pkg-config", what, "ndio"], stdout=subprocess.PIPE, text=True, check=True)
    return shlex.split(run.stdout)


setup(
    version=(HERE.parent / "VERSION").read_text(encoding="ascii").strip(),
    packages=["ndio"],
    ext_modules=[Extension(
        "_ndio",
        sources=sorted(path.name for path in HERE.glob("*.c")),
        depends=sorted(path.name for path in HERE.glob("*.h")),
        extra_compile_args=["-std=gnu11", "-D_GNU_SOURCE", *ask_pkg_config("--cflags")],
        extra_link_args=ask_pkg_config("--libs"),
        py_limited_api=True,
    )],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
