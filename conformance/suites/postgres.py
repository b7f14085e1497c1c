"""PostgreSQL's own regression suite, the version that the installed server is."""

import os
import re
import shutil

from . import parts
from .parts import FAIL, PASS, Skipped

NAME = "postgres"
DATABASE = "regression"
LINE = re.compile(r"^\s*(?:test )?\s*(\S+)\s+\.\.\. (ok|FAILED|failed)\b")


def prepare(cache, tree):
    log = os.path.join(cache, "postgres-build.log")
    version = os.popen(f"{parts.program('postgres')} --version").read().split()[2]
    major = version.split(".")[0]
    done = os.path.join(cache, f"postgres-{version}.path")
    if os.path.exists(done):
        with open(done, encoding="utf-8") as file:
            return file.read()
    source = tree
    if not source:
        # The mirror's newest may be newer than the installed server; expected outputs must fit the server.
        installed = os.popen(f"dpkg-query -W -f '${{Version}}' postgresql-{major} 2>/dev/null").read().strip()
        source = parts.debian_source(f"postgresql-{major}", installed or None, cache, log)
    parts.say(f"building PostgreSQL {version}'s test programs, about three minutes; see {log}")
    parts.command(["./configure", "--quiet", "--without-readline", "--without-zlib", "--without-icu"], source, log)
    parts.command(["make", "-s", "-C", "src/backend", "generated-headers"], source, log)
    for folder in ("src/port", "src/common", "src/interfaces/libpq", "src/test/regress", "contrib/spi"):
        parts.command(["make", "-s", "-j1", "-C", folder], source, log)
    for library in ("autoinc.so", "refint.so"):
        shutil.copy(os.path.join(source, "contrib/spi", library), os.path.join(source, "src/test/regress", library))
    with open(done, "w", encoding="utf-8") as file:
        file.write(source)
    return source


def run(source, target, direct, folder):
    """The database is made anew by the direct route; the gateway must know it as system `regression`."""
    clean(direct)
    direct.psql(f"CREATE DATABASE {DATABASE} TEMPLATE template0 LOCALE 'C' ENCODING 'UTF8'", "postgres")
    for name in ("lc_messages", "lc_monetary", "lc_numeric", "lc_time"):
        direct.psql(f"ALTER DATABASE {DATABASE} SET {name} TO 'C'", "postgres")
    direct.psql(f"ALTER DATABASE {DATABASE} SET bytea_output TO 'hex'", "postgres")
    direct.psql(f"ALTER DATABASE {DATABASE} SET timezone_abbreviations TO 'Default'", "postgres")
    tests = os.path.join(source, "src/test/regress")
    as_account, account = parts.unprivileged()
    # The server writes files next to the results, so both must be of one account.
    output = os.path.join(folder, f"postgres-{target.name}")
    shutil.rmtree(output, ignore_errors=True)
    os.makedirs(output)
    if account:
        shutil.chown(output, account)
    log = os.path.join(folder, f"postgres-{target.name}.log")
    open(log, "w", encoding="utf-8").close()
    words = [*as_account, os.path.join(tests, "pg_regress"), "--use-existing", f"--dbname={DATABASE}", f"--inputdir={tests}", f"--outputdir={output}",
             f"--bindir={os.path.dirname(parts.program('psql'))}", f"--dlpath={tests}", f"--host={target.host}", f"--port={target.port}",
             f"--user={target.user}", f"--schedule={tests}/parallel_schedule", "--max-connections=20"]
    parts.command(words, output, log, target.environment(DATABASE), check=False)
    clean(direct)
    with open(log, encoding="utf-8", errors="replace") as file:
        found = [LINE.match(line) for line in file]
    outcomes = {match[1]: PASS if match[2] == "ok" else FAIL for match in found if match}
    if not outcomes:
        raise Skipped(f"pg_regress reported no test, see {log}")
    return outcomes


def clean(direct):
    direct.psql(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", "postgres")
    for name in direct.psql("SELECT quote_ident(spcname) FROM pg_tablespace WHERE spcname LIKE 'regress%'", "postgres").split("\n"):
        if name:
            direct.psql(f"DROP TABLESPACE {name}", "postgres")
    for name in direct.psql("SELECT quote_ident(rolname) FROM pg_roles WHERE rolname LIKE 'regress%'", "postgres").split("\n"):
        if name:
            direct.psql(f"DROP OWNED BY {name}; DROP ROLE {name}", "postgres")
