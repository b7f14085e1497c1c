"""Parts the suites share: URLs, downloads through Debian and pip, commands with a limit, JUnit reports."""

import glob
import os
import pwd
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from urllib.parse import unquote, urlsplit

PASS, FAIL, SKIP = "pass", "fail", "skip"


class Skipped(Exception):
    """A suite that cannot run here; the text says why and what would help."""


class Target:
    """A PostgreSQL URL taken apart."""

    def __init__(self, name, url):
        parts = urlsplit(url)
        if parts.scheme not in ("postgres", "postgresql") or not parts.hostname:
            raise SystemExit(f"conformance: --{name} needs a URL such as postgres://USER:PASSWORD@HOST:PORT/DATABASE")
        self.name, self.url, self.host, self.port = name, url, parts.hostname, parts.port or 5432
        self.user, self.password = unquote(parts.username or "postgres"), unquote(parts.password or "")
        self.database = unquote(parts.path.lstrip("/")) or self.user
        # The same place under other names: a gateway knows no login but its agents'.
        self.others = {}

    def environment(self, database=None):
        """libpq's variables."""
        names = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return names | {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user, "PGPASSWORD": self.password,
                        "PGDATABASE": database or self.database,
                        # Equal on both routes: the throw-away server has no TLS, and what a driver does with TLS is not compared here.
                        "PGSSLMODE": "disable"}

    def psql(self, sql, database=None):
        """Runs SQL and returns what was printed."""
        command = [program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]
        done = subprocess.run(command, env=self.environment(database), capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {done.stderr.strip()}")
        return done.stdout.strip()


def program(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
    if not found:
        raise SystemExit(f"conformance: `{name}` is missing; scripts/setup.sh installs it")
    return found[-1]


def say(text):
    print(f"conformance: {text}", file=sys.stderr, flush=True)


def command(words, folder, log, environment=None, limit=1800, check=True):
    """Runs a command at low priority, everything it says goes to `log`."""
    with open(log, "ab") as file:
        file.write(f"$ {' '.join(map(str, words))}\n".encode())
        file.flush()
        try:
            done = subprocess.run(["nice", "-n", "10", *map(str, words)], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                  stdout=file, stderr=subprocess.STDOUT, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            raise Skipped(f"`{words[0]}` took longer than {limit} s, see {log}") from None
    if check and done.returncode != 0:
        raise Skipped(f"`{words[0]}` failed, see {log}")
    return done.returncode


def debian_source(package, version, cache, log):
    """The unpacked Debian source package, fetched by apt with lists of its own: the machine's stay as they are."""
    if not shutil.which("apt-get"):
        raise Skipped(f"no apt-get to fetch the source of `{package}`")
    area = os.path.join(cache, "apt")
    for folder in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(area, folder), exist_ok=True)
    release = next((line.split("=")[1].strip() for line in open("/etc/os-release", encoding="utf-8") if line.startswith("VERSION_CODENAME=")), "bookworm")
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    with open(os.path.join(area, "sources.list"), "w", encoding="utf-8") as file:
        file.write(f"deb-src {signed} http://deb.debian.org/debian {release} main\n")
        file.write(f"deb-src {signed} http://deb.debian.org/debian {release}-updates main\n")
        file.write(f"deb-src {signed} http://deb.debian.org/debian-security {release}-security main\n")
    options = ["-q", "-o", f"Dir::Etc::sourcelist={area}/sources.list", "-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={area}/lists",
               "-o", f"Dir::Cache={area}/cache"]
    if os.geteuid() == 0:
        options += ["-o", "APT::Sandbox::User=root"]
    command(["apt-get", *options, "update"], cache, log)
    wanted = f"{package}={version}" if version else package
    fetched = os.path.join(cache, f"source-{package}")
    shutil.rmtree(fetched, ignore_errors=True)
    os.makedirs(fetched)
    try:
        command(["apt-get", *options, "source", "--download-only", wanted], fetched, log)
    except Skipped:
        raise Skipped(f"Debian's mirror does not give the source of `{wanted}`, see {log}; give a checkout with --tree") from None
    # The original archive is enough, and needs no dpkg-dev to unpack.
    archives = glob.glob(os.path.join(fetched, "*.orig.tar.*"))
    archives = [path for path in archives if not path.endswith(".asc")]
    if len(archives) != 1:
        raise Skipped(f"the source of `{wanted}` is not one archive")
    command(["tar", "xf", archives[0]], fetched, log)
    folders = [path for path in glob.glob(os.path.join(fetched, "*")) if os.path.isdir(path)]
    if len(folders) != 1:
        raise Skipped(f"the source of `{wanted}` is not one folder")
    return folders[0]


def python_environment(folder, packages, log):
    """A virtual environment with some packages; made once."""
    python = os.path.join(folder, "bin", "python")
    done = os.path.join(folder, "complete")
    if not os.path.exists(done):
        command([sys.executable, "-m", "venv", folder], "/", log)
        command([python, "-m", "pip", "install", "--quiet", *packages], "/", log)
        open(done, "w", encoding="utf-8").close()
    return python


def junit(path):
    """Outcomes from a JUnit report. A test that ran twice, as body and as clean-up, counts as its worse half."""
    if not os.path.exists(path):
        raise Skipped("pytest wrote no report")
    outcomes = {}
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        tags = {child.tag for child in case}
        outcome = FAIL if tags & {"failure", "error"} else SKIP if "skipped" in tags else PASS
        if outcomes.get(name) != FAIL:
            outcomes[name] = outcome
    return outcomes


def unprivileged():
    """Words that run a command as the account servers run under, when we are root."""
    if os.geteuid() != 0:
        return [], None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"], name
    raise Skipped("no unprivileged account")
