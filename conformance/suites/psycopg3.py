"""psycopg 3's tests. PyPI's source distribution leaves them out; Debian's source package or a checkout has them."""

import os

from . import parts
from .parts import Skipped

NAME = "psycopg3"


def prepare(cache, tree):
    log = os.path.join(cache, "psycopg3-prepare.log")
    source = tree or parts.debian_source("psycopg3", None, cache, log)
    if not os.path.isdir(os.path.join(source, "tests")):
        raise Skipped(f"no tests in `{source}`")
    version = next((line.split('"')[1] for line in open(os.path.join(source, "psycopg/pyproject.toml"), encoding="utf-8")
                    if line.startswith("version")), None) if os.path.exists(os.path.join(source, "psycopg/pyproject.toml")) else None
    wanted = f"psycopg[binary]=={version}" if version and "dev" not in version else "psycopg[binary]"
    # No pytest-asyncio: it breaks the collection.
    python = parts.python_environment(os.path.join(cache, "psycopg3-venv"), [wanted, "pytest", "anyio", "pytest-randomly", "mypy", "dnspython", "shapely"], log)
    return python, source


def run(state, target, direct, folder):
    python, source = state
    report = os.path.join(folder, f"psycopg3-{target.name}.xml")
    if os.path.exists(report):
        os.remove(report)
    environment = target.environment() | {
        "PSYCOPG_TEST_DSN": f"host={target.host} port={target.port} user={target.user} password={target.password} dbname={target.database}"}
    log = os.path.join(folder, f"psycopg3-{target.name}.log")
    parts.command([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-m", "not slow and not mypy and not timing and not flakey",
                   f"--junitxml={report}", "tests"], source, log, environment, check=False)
    return parts.junit(report)
