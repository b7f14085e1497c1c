"""node-postgres' integration tests. npm's package leaves them out; a checkout (or Debian's source package) has them."""

import glob
import os
import shutil

from . import parts
from .parts import FAIL, PASS, Skipped

NAME = "node-postgres"


def prepare(cache, tree):
    log = os.path.join(cache, "node-postgres-prepare.log")
    if not shutil.which("npm"):
        raise Skipped("no npm here")
    source = tree or parts.debian_source("node-postgres", None, cache, log)
    package = os.path.join(source, "packages/pg")
    package = package if os.path.isdir(package) else source
    if not os.path.isdir(os.path.join(package, "test/integration")):
        raise Skipped(f"no test/integration in `{package}`")
    # Out of its workspace, so that npm takes its dependencies from the registry.
    home = os.path.join(cache, "node-postgres")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(package, home, ignore=shutil.ignore_patterns("node_modules"))
    parts.command(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], home, log)
    return home


def run(home, target, direct, folder):
    direct.psql("DROP TABLE IF EXISTS person; CREATE TABLE person (id serial, name varchar(10), age integer)")
    direct.psql("INSERT INTO person (name, age) SELECT chr(64 + n) || 'aron', n * 10 FROM generate_series(1, 26) AS n")
    direct.psql("UPDATE person SET name = 'Brian', age = 20 WHERE id = 2")
    log = os.path.join(folder, f"node-postgres-{target.name}.log")
    open(log, "w", encoding="utf-8").close()
    outcomes = {}
    for path in sorted(glob.glob(f"{home}/test/integration/**/*-tests.js", recursive=True)):
        name = os.path.relpath(path, home)
        try:
            code = parts.command(["node", name], home, log, target.environment() | {"PGTESTNOSSL": "1"}, limit=120, check=False)
        except Skipped:
            code = 1
        outcomes[name] = PASS if code == 0 else FAIL
    if not outcomes:
        raise Skipped("no test file found")
    return outcomes
