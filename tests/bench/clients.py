"""Clients of one server: ndio copy and libndio, and what a user would take instead."""
import contextlib
import filecmp
import os
import re
import secrets
import subprocess
import time

import work
from disks import CHECK_SIZE, GIB, HEADER, MIB, Failure, drop_caches, fill, make_luks
from servers import NBDKIT, Contender, Server

# The server has all in its page cache, so that it is the client that decides: `plain` and
# `scratch`, random bytes, and the same bytes as volumes, `luks1` and `luks2`.
FILE_SERVER = NBDKIT + ["file", "dir={exports}"]
SERVERS = {
    "": FILE_SERVER,
    "tls-psk-": FILE_SERVER + ["--tls=require", "--tls-psk={psk}"],
    "tls-cert-": FILE_SERVER + ["--tls=require", "--tls-certificates={certificates}"],
}
URIS = {
    "": "nbd+unix:///{export}?socket={sock}",
    "tls-psk-": "nbds+unix://bench@/{export}?socket={sock}&tls-psk-file={psk}",
    "tls-cert-": "nbds+unix:///{export}?socket={sock}&tls-certificates={certificates}",
}

QEMU_LUKS = ("driver=luks,key-secret=key,file.driver=nbd,file.export=luks1,"
             "file.server.type=unix,file.server.path={sock}")
QEMU_SECRET = ["--object", "secret,id=key,file={key}"]
# who: its command. {out} is what throws the data away, or in a check a file.
COPY_JOBS = {
    "copy-out": {
        "nbdcopy": ["nbdcopy", "{uri_plain}", "{out}"],
        "ndio-copy": ["{ndio}", "copy", "{uri_plain}", "{out}"],
    },
    "copy-in": {
        "nbdcopy": ["nbdcopy", "--flush", "{source}", "{uri_scratch}"],
        "ndio-copy": ["{ndio}", "copy", "{source}", "{uri_scratch}"],
    },
    "copy-out-luks": {
        "qemu-img-luks1": ["qemu-img", "convert", "-W", "-n", *QEMU_SECRET, "--image-opts",
                           "--target-image-opts", QEMU_LUKS, "{qemu_out}"],
        "ndio-copy-luks1": ["{ndio}", "copy", "--src-key-file", "{key}", "{uri_luks1}", "{out}"],
        "ndio-copy-luks2": ["{ndio}", "copy", "--src-key-file", "{key}", "{uri_luks2}",
                                  "{out}"],
    },
    "copy-in-luks": {
        # Without -t it wouldn't flush.
        "qemu-img-luks1": ["qemu-img", "convert", "-W", "-n", "-t", "none", *QEMU_SECRET,
                           "-f", "raw", "--target-image-opts", "{source}", QEMU_LUKS],
        "ndio-copy-luks1": ["{ndio}", "copy", "--dst-key-file", "{key}", "{source}",
                            "{uri_luks1}"],
        "ndio-copy-luks2": ["{ndio}", "copy", "--dst-key-file", "{key}", "{source}",
                                  "{uri_luks2}"],
    },
}
for kind in ("tls-psk-", "tls-cert-"):
    for way in ("out", "in"):
        COPY_JOBS[f"{kind}copy-{way}"] = {
            **COPY_JOBS[f"copy-{way}"],
            **{who: command for who, command in COPY_JOBS[f"copy-{way}-luks"].items()
               if who.startswith("ndio")}}

# Programs that use a library take the same options.
LOADS = {
    "library-seq-read": ["-w", "0", "-s", str(MIB), "-d", "8"],
    "library-seq-write": ["-w", "100", "-s", str(MIB), "-d", "8", "-f"],
    "library-rand-read-32": ["-w", "0", "-s", "4096", "-d", "32", "-R"],
    "library-rand-write-32": ["-w", "100", "-s", "4096", "-d", "32", "-R", "-f"],
}
LOADERS = {
    "libnbd": ["{load}", "{uri_scratch}"],
    "libndio": ["{ndio_load}", "{uri_scratch}"],
    "libndio-luks1": ["{ndio_load}", "-k", "{key}", "{uri_luks1}"],
    "libndio-luks2": ["{ndio_load}", "-k", "{key}", "{uri_luks2}"],
}
CONNECTIONS = (1, 4)


# Small requests, for each second that a job is to take.
COUNTS = {"library-rand-read-32": 100000, "library-rand-write-32": 20000}


def version_of(who):
    return int(who[-1]) if "-luks" in who else 0


class Clients:
    def __init__(self, bench):
        self.bench = bench
        self.exports = bench.path("exports")
        self.names = {**bench.names, "exports": self.exports, "psk": bench.path("psk"),
                      "certificates": bench.path("certificates"), "source": self.export("plain"),
                      "back": bench.path("back")}
        self.size = min(bench.size, 512 * MIB)

    def export(self, name):
        return os.path.join(self.exports, name)

    def make(self):
        os.mkdir(self.exports)
        fill(self.names["source"], self.size)
        fill(self.export("scratch"), self.size)
        for version in (1, 2):
            make_luks(self.export(f"luks{version}"), version, self.size, self.names["key"])
        with open(self.names["psk"], "w", encoding="ascii",
                  opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(f"bench:{secrets.token_hex(32)}\n")
        self.make_certificates()

    def make_certificates(self):
        place = self.names["certificates"]
        os.mkdir(place)
        self.bench.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9",
                       "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                       "-keyout", f"{place}/server-key.pem", "-out", f"{place}/server-cert.pem")
        os.link(f"{place}/server-cert.pem", f"{place}/ca-cert.pem") # its own authority

    def remove(self):
        self.bench.run("rm", "-rf", self.exports)

    @contextlib.contextmanager
    def serving(self, kind):
        """A server that runs. It isn't warmed up by Server's own client, which has no TLS."""
        server = Server(self.bench, Contender("server", "server", SERVERS[kind]), **self.names)
        server.warm_up = lambda: None
        with server:
            yield server

    def words(self, command, server, kind, **more):
        uris = {f"uri_{name}": URIS[kind].format(export=name, **server.names)
                for name in ("plain", "scratch", "luks1", "luks2")}
        names = {"out": "null:", "qemu_out": f"driver=null-co,size={self.size}",
                 **server.names, **uris, **more}
        return [word.format(**names) for word in command]

    # ---- checks ----

    def behind(self, version, script):
        """Runs it with $uri, at which another program than the measured one serves the plain
        data; for LUKS2 there is only ours."""
        serve = {0: ["file", self.export("scratch")],
                 1: ["--filter=luks", "file", self.export("luks1"), "passphrase=+{key}"],
                 2: ["{plugin}", self.export("luks2"), "passphrase=+{key}"]}[version]
        self.bench.run("nbdkit", "--unix=-", *[word.format(**self.names) for word in serve],
                       "--run", script)

    def forget(self, version, size):
        """The first bytes of a target become others."""
        with open(self.export(f"luks{version}" if version else "scratch"), "r+b") as file:
            file.seek(HEADER.get(version, 0))
            for _ in range(size // MIB):
                file.write(bytes(MIB))

    def compare_back(self):
        back = self.names["back"]
        same = filecmp.cmp(self.names["source"], back, shallow=False)
        os.unlink(back)
        if not same:
            raise Failure("the data are wrong")

    def check_out(self, server, kind, who, command):
        version, back = version_of(who), self.names["back"]
        if version:
            self.behind(version, f"nbdcopy '{self.names['source']}' \"$uri\"")
        with open(back, "wb") as file:
            file.truncate(self.size) # qemu-img -n takes it as it is
        self.bench.run(*self.words(command, server, kind, out=back,
                                   qemu_out=f"driver=file,filename={back}"))
        self.compare_back()

    def check_in(self, server, kind, who, command):
        self.forget(version_of(who), self.size)
        self.bench.run(*self.words(command, server, kind))
        self.behind(version_of(who), f"nbdcopy \"$uri\" '{self.names['back']}'")
        self.compare_back()

    def check_load(self, server, who):
        """Each way once."""
        version, size = version_of(who), CHECK_SIZE
        options = ["-s", str(MIB), "-n", str(size // MIB)]
        load = " ".join([f"'{self.names['load']}'", *options])
        words = self.words(LOADERS[who], server, "")
        self.behind(version, f"{load} -w 100 -f \"$uri\"")
        self.bench.run(words[0], *options, "-w", "0", "-v", *words[1:])
        self.forget(version, size)
        self.bench.run(words[0], *options, "-w", "100", "-d", "8", "-f", *words[1:])
        self.behind(version, f"{load} -w 0 -v \"$uri\"")

    # ---- measuring ----

    def timed(self, command):
        """Runs it: what it said, its time, its CPU time."""
        with open(self.bench.path("client.log"), "w+", encoding="utf-8") as log:
            before, start = work.client_cpu(), time.monotonic()
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    check=False).returncode
            passed, cpu = time.monotonic() - start, work.client_cpu() - before
            log.seek(0)
            said = log.read().strip()
        if status:
            raise Failure(f"{command[0]} failed ({status}): {said[-200:]}")
        return said, passed, cpu

    def warm_server(self):
        """The checks may have left its files out of the page cache."""
        for name in os.listdir(self.exports):
            with open(self.export(name), "rb", buffering=0) as file:
                while file.read(MIB):
                    pass

    def time_copy(self, server, kind, command):
        self.warm_server()
        if "{source}" in command:
            drop_caches([self.names["source"]])
        _, passed, cpu = self.timed(self.words(command, server, kind))
        return {"MiB/s": self.size / MIB / passed, "client_cpu_s/GiB": cpu / self.size * GIB}

    def time_load(self, server, who, job, connections):
        self.warm_server()
        options = LOADS[job]
        size = int(options[options.index("-s") + 1])
        count = int(COUNTS[job] * self.bench.seconds) if job in COUNTS else self.size // size
        program, *rest = self.words(LOADERS[who], server, "")
        said, _, cpu = self.timed([program, *options, "-n", str(count), "-c", str(connections),
                                   *rest])
        seconds = float(re.search(r"requests in ([0-9.]+) seconds", said)[1])
        return {"MiB/s": count * size / MIB / seconds, "IOPS": count / seconds,
                "client_cpu_s/GiB": cpu / (count * size) * GIB}

    def copies(self):
        for job in self.bench.chosen_jobs(COPY_JOBS):
            kind, _, rest = job.rpartition("copy-")
            commands = COPY_JOBS[job]
            check = self.check_out if rest.startswith("out") else self.check_in
            with self.serving(kind) as server:
                self.bench.measure(
                    "clients", job, [(who, 1) for who in self.bench.chosen_who(commands)],
                    lambda case: check(server, kind, case[0], commands[case[0]]),
                    lambda case, _: self.time_copy(server, kind, commands[case[0]]))

    def loads(self):
        with self.serving("") as server:
            for job in self.bench.chosen_jobs(LOADS):
                for connections in CONNECTIONS:
                    self.bench.measure(
                        "clients", job,
                        [(who, connections) for who in self.bench.chosen_who(LOADERS)],
                        lambda case: self.check_load(server, case[0]),
                        lambda case, _: self.time_load(server, case[0], job, case[1]))


def measure(bench):
    clients = Clients(bench)
    clients.make()
    try:
        clients.copies()
        clients.loads()
    finally:
        clients.remove()
