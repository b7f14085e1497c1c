"""tokio-postgres' tests; they are in the published crate."""

import glob
import os
import re
import shutil

from . import parts
from .parts import FAIL, PASS, SKIP, Skipped

NAME = "tokio-postgres"
VERSION = "0.7.18"
LINE = re.compile(r"^test (\S+) \.\.\. (ok|FAILED|ignored)")
ROLES = ("pass_user", "md5_user", "scram_user")


def prepare(cache, tree):
    if tree:
        return tree, os.path.join(cache, "tokio-postgres-target")
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    found = glob.glob(f"{home}/registry/src/*/tokio-postgres-{VERSION}")
    if not found:
        # Our own lock file names this version, so `cargo fetch` brings it.
        root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
        parts.command(["cargo", "fetch", "--locked"], root, os.path.join(cache, "tokio-postgres-prepare.log"))
        found = glob.glob(f"{home}/registry/src/*/tokio-postgres-{VERSION}")
    if not found:
        raise Skipped(f"cargo's registry has no tokio-postgres {VERSION}")
    return found[0], os.path.join(cache, "tokio-postgres-target")


def run(state, target, direct, folder):
    source, build = state
    copy = os.path.join(folder, f"tokio-postgres-{target.name}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    # A workspace of its own: it lies inside ours.
    with open(os.path.join(copy, "Cargo.toml"), "a", encoding="utf-8") as file:
        file.write("\n[workspace]\n")
    for path in glob.glob(f"{copy}/tests/test/**/*.rs", recursive=True):
        # parse.rs connects nowhere; its ports are only examples.
        if os.path.basename(path) != "parse.rs":
            rewrite(path, target)
    for role in ROLES:
        direct.psql(f"DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role} LOGIN PASSWORD 'password'; END IF; END $$")
    for extension in ("hstore", "citext", "ltree"):
        direct.psql(f"CREATE EXTENSION IF NOT EXISTS {extension}")
    log = os.path.join(folder, f"tokio-postgres-{target.name}.log")
    open(log, "w", encoding="utf-8").close()
    environment = os.environ | {"CARGO_TARGET_DIR": build}
    parts.command(["cargo", "test", "-j1", "--test", "test", "--no-fail-fast"], copy, log, environment, check=False)
    with open(log, encoding="utf-8", errors="replace") as file:
        found = [LINE.match(line) for line in file]
    outcomes = {match[1]: {"ok": PASS, "FAILED": FAIL, "ignored": SKIP}[match[2]] for match in found if match}
    if not outcomes:
        raise Skipped(f"the tests did not build, see {log}")
    return outcomes


def rewrite(path, target):
    """The suite expects port 5433 and a superuser `postgres` who needs no password, on a database of its name."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    text = text.replace("5433", str(target.port)).replace(f"127.0.0.1:{target.port}", f"{target.host}:{target.port}")
    if target.host not in ("127.0.0.1", "localhost"):
        text = text.replace("host=localhost", f"host={target.host}").replace("invalid,localhost", f"invalid,{target.host}")
    text = text.replace("dbname=postgres", f"dbname={target.database}")
    for role, agent in target.others.items():
        # At a gateway a role of the suite is an agent, and its password the token.
        text = re.sub(rf'"[^"]*user={role}\b[^"]*"', lambda found: found[0].replace("password=password", f"password={agent.password}"), text)
    text = re.sub(r"user=postgres\b", lambda _: f"user={target.user} password={target.password} dbname={target.database}", text)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
