"""Proxies: the processes between pgbench and the server; starting PgBouncer, and reading /proc about any of them."""

import base64
import glob
import hmac
import json
import os
import pwd
import shutil
import socket
import struct
import subprocess
import time
from urllib.parse import unquote, urlsplit


class Target:
    """A PostgreSQL URL taken apart."""

    def __init__(self, name, url, pid=None):
        parts = urlsplit(url)
        if parts.scheme not in ("postgres", "postgresql") or not parts.hostname:
            raise SystemExit(f"bench: `{name}` needs a URL such as postgres://USER:PASSWORD@HOST:PORT/DATABASE")
        self.name, self.url, self.pid = name, url, pid
        self.host, self.port = parts.hostname, parts.port or 5432
        self.user, self.password = unquote(parts.username or "postgres"), unquote(parts.password or "")
        self.database = unquote(parts.path.lstrip("/")) or self.user

    def as_role(self, user, password):
        """The same place under another login."""
        return Target(self.name, f"postgres://{quote(user)}:{quote(password)}@{self.host}:{self.port}/{quote(self.database)}", self.pid)

    def psql(self, sql):
        """Runs SQL, returns what was printed, raises with the error text."""
        done = subprocess.run([program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-c", sql],
                              capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()


def program(name):
    """Debian's `pgbench` in the path is a wrapper in Perl; take the real one of the newest version."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4].split(".")[0]))
    if found:
        return found[-1]
    return shutil.which(name) or exit_with(f"`{name}` is missing; scripts/setup.sh installs it")


def exit_with(message):
    raise SystemExit(f"bench: {message}")


class Throwaway:
    """A PostgreSQL of our own, by the testkit; it ends with its input."""

    def __init__(self, settings):
        root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
        command = ["cargo", "run", "--quiet", "--package", "reprieve-testkit", "--example", "throwaway", "--", *settings]
        self.process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            exit_with("the throw-away server did not start")
        self.url = json.loads(line)["url"]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


class PgBouncer:
    """PgBouncer in session mode, SCRAM on both legs, no TLS on loopback; never run as root."""

    def __init__(self, direct, folder, sessions):
        self.folder = folder
        binary = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        if not os.path.exists(binary):
            exit_with("pgbouncer is missing; scripts/setup.sh installs it")
        self.version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
        port = free_port()
        quoted = lambda text: '"' + text.replace('"', '""') + '"'
        with open(f"{folder}/users.txt", "w", encoding="utf-8") as file:
            file.write(f"{quoted(direct.user)} {quoted(direct.password)}\n")
        with open(f"{folder}/pgbouncer.ini", "w", encoding="utf-8") as file:
            file.write(f"""[databases]
* = host={direct.host} port={direct.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = session
max_client_conn = {sessions + 50}
default_pool_size = {sessions}
server_reset_query =
server_tls_sslmode = disable
ignore_startup_parameters = extra_float_digits,options
log_connections = 0
log_disconnections = 0
log_stats = 0
""")
        command = [binary, f"{folder}/pgbouncer.ini"]
        if os.geteuid() == 0:
            user = next((name for name in ("postgres", "nobody") if has_user(name)), None) or exit_with("no account to run pgbouncer as")
            for path in (folder, f"{folder}/users.txt", f"{folder}/pgbouncer.ini"):
                shutil.chown(path, user)
            entry = pwd.getpwnam(user)
            command = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"] + command
        with open(f"{folder}/pgbouncer.log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        url = f"postgres://{quote(direct.user)}:{quote(direct.password)}@127.0.0.1:{port}/{quote(direct.database)}"
        self.target = Target("pgbouncer", url, self.process.pid)
        wait_for_port(self.process, port, f"{folder}/pgbouncer.log")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Reprieve:
    """A gateway of our own with everything on, in front of a database; `protect --apply` has been run where it can be."""

    def __init__(self, binary, agents, admin, folder):
        self.binary, self.folder = os.path.abspath(binary), folder
        if not os.path.exists(self.binary):
            exit_with(f"{binary} is missing: cargo build --release --package reprieve")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("REPRIEVE_")}
        self.environment |= {"BENCH_URL": agents.url, "BENCH_ADMIN_URL": admin.url, "REPRIEVE_PASSPHRASE": "correct horse battery staple"}
        ports = free_port(), free_port()
        # Rows of the hour are set aside for each transaction that runs: the hour has to hold many of them.
        with open(f"{folder}/reprieve.toml", "w", encoding="utf-8") as file:
            file.write(f"""[listen]
postgres = "127.0.0.1:{ports[0]}"
operators = "127.0.0.1:{ports[1]}"
[budget.bench]
rows_per_statement = 100000
rows_per_transaction = 100000
rows_per_hour = 1000000000000
relations_dropped = 0
[[system]]
name = "bench"
kind = "postgres"
environment = "bench"
url = "env:BENCH_URL"
admin = "env:BENCH_ADMIN_URL"
""")
        secret = self.tell("init", "--operator", "ana")["totp_secret"]
        self.protected = self.tell("protect", "bench", "--apply")["done"]
        with open(f"{folder}/serve.log", "wb") as log:
            self.process = subprocess.Popen([self.binary, "serve"], cwd=folder, env=self.environment, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        for port in ports:
            wait_for_port(self.process, port, f"{folder}/serve.log")
        self.environment["REPRIEVE_CODE"] = one_time_code(secret)
        # A token without `destroy` is measured the long way: the guard counts rows, not what became of them.
        agent = self.tell("agent", "add", "bench", "--system", "bench", "--allow", "read,write,destroy", "--as", "ana")
        # Like the two others: no TLS on loopback.
        url = agent["url"].partition("?")[0] + "?sslmode=disable"
        self.target = Target("reprieve", url, self.process.pid)

    def tell(self, *arguments):
        done = subprocess.run([self.binary, *arguments, "--json"], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            exit_with(f"`reprieve {' '.join(arguments)}` failed: {done.stdout} {done.stderr}")
        return json.loads(done.stdout)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def one_time_code(secret):
    """The six digits of now (RFC 6238)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.new(key, struct.pack(">Q", int(time.time()) // 30), "sha1").digest()
    at = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[at:at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


def quote(text):
    from urllib.parse import quote as encode
    return encode(text, safe="")


def has_user(name):
    try:
        pwd.getpwnam(name)
        return True
    except KeyError:
        return False


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(process, port, log):
    for _ in range(200):
        if process.poll() is not None:
            with open(log, encoding="utf-8", errors="replace") as file:
                exit_with(f"a proxy did not start:\n{file.read()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    exit_with(f"nothing listens on port {port} after 10 s")


def cpu_seconds(pid):
    """CPU a process has used so far, all threads, user and system."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        # The second field may hold blanks and parentheses; count from its end.
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid):
    """VmRSS of a process."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    raise RuntimeError(f"no VmRSS for {pid}")


def listener_pid(port):
    """The process that listens on a loopback port, or None when it is not ours to see."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="utf-8") as file:
                for line in list(file)[1:]:
                    fields = line.split()
                    # State 0A is LISTEN.
                    if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                        inodes.add(f"socket:[{fields[9]}]")
        except OSError:
            continue
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link) in inodes:
                return int(link.split("/")[2])
        except OSError:
            continue
    return None
