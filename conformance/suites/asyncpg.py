"""asyncpg's tests; they are in its source distribution on PyPI."""

import glob
import os
import shutil

from . import parts
from .parts import Skipped

NAME = "asyncpg"
VERSION = "0.31.0"
# The suite makes and drops these; an agent connects to what the gateway has a system for.
DATABASES = ("testdb", "asyncpg_intro_test")


def prepare(cache, tree):
    log = os.path.join(cache, "asyncpg-prepare.log")
    python = parts.python_environment(os.path.join(cache, f"asyncpg-{VERSION}-venv"),
                                      [f"asyncpg=={VERSION}", "pytest", "distro", "pyopenssl", "typing_extensions"], log)
    home = os.path.join(cache, f"asyncpg-{VERSION}-tests")
    if not os.path.exists(home):
        if not tree:
            parts.command([python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", f"asyncpg=={VERSION}", "-d", cache], cache, log)
            archives = glob.glob(os.path.join(cache, f"asyncpg-{VERSION}.tar.gz"))
            if not archives:
                raise Skipped("PyPI gave no source distribution of asyncpg")
            parts.command(["tar", "xzf", archives[0]], cache, log)
            tree = os.path.join(cache, f"asyncpg-{VERSION}")
        # Alone in a folder: beside its source the tests would import that, which is not built.
        os.makedirs(home + ".draft", exist_ok=True)
        shutil.copytree(os.path.join(tree, "tests"), os.path.join(home + ".draft", "tests"), dirs_exist_ok=True)
        os.rename(home + ".draft", home)
    return python, home


def run(state, target, direct, folder):
    python, home = state
    report = os.path.join(folder, f"asyncpg-{target.name}.xml")
    if os.path.exists(report):
        os.remove(report)
    log = os.path.join(folder, f"asyncpg-{target.name}.log")
    parts.command([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "tests"], home, log, target.environment(), check=False)
    return parts.junit(report)
