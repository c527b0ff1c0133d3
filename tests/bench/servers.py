"""The contenders: how each is started and stopped, its CPU time and its memory."""
import collections
import getpass
import grp
import os
import shutil
import signal
import subprocess
import time

from disks import HEADER, Failure

Contender = collections.namedtuple("Contender", "who label command luks reference only behind",
                                   defaults=(None, None, None, None))

# {names} are those of Bench.names and of the server itself.
NBDKIT = ["nbdkit", "--foreground", "--exit-with-parent", "--pidfile={pid}", "--unix={sock}"]
QEMU_CLIENT = ["qemu-nbd", "--persistent", "--shared=0", "--pid-file={pid}", "--socket={sock}"]
QEMU = QEMU_CLIENT + ["--cache=none", "--aio=io_uring"]
SERVE = ["{ndio_serve}", "--pid-file={pid}", "--socket={sock}"]
NBD_SERVER = ["nbd-server", "-C", "{conf}", "-p", "{pid}"] # goes into the background
NBD_SERVER_CONF = """[generic]
unixsock = {sock}
user = {user}
group = {group}
[disk]
exportname = {luks1}
flush = true
fua = true
"""

# luks: the version of the volume that it decrypts, 0 for the bytes of the LUKS1 file as they
# are, None for others. reference: who checks what it writes, and writes what it is checked
# with; None if it keeps nothing, or is the reference itself. For LUKS2 no other program works
# without root than our own: the tests in the virtual machine compare that with the kernel.
# only: fio's kind of work that it takes part in; None: all.
# behind: the contender that it is a client of, at {behind}: its CPU time and memory count too.
CONTENDERS = {contender.who: contender for contender in [
    Contender("disk", "raw disk, at its best", None, 0),
    Contender("disk-plain", "raw disk, plain fio", None, 0),
    Contender("null", "nbdkit null", NBDKIT + ["null", "size={size}"]),
    Contender("bare", "nbdkit, pread and pwrite", NBDKIT + ["{bare}", "{luks1}"], 0, "disk"),
    Contender("ndio", "ndio", NBDKIT + ["{plugin}", "{luks1}"], 0, "disk"),
    Contender("serve", "ndio serve", SERVE + ["{luks1}"], 0, "disk"),
    Contender("nbdkit-file", "nbdkit file", NBDKIT + ["file", "{luks1}"], 0, "disk"),
    Contender("qemu", "qemu-nbd raw", QEMU + ["--format=raw", "{luks1}"], 0, "disk"),
    Contender("nbd-server", "nbd-server", NBD_SERVER, 0, "disk"),
    Contender("ndio-luks2", "ndio LUKS2, 4096",
              NBDKIT + ["{plugin}", "{luks2}", "passphrase=+{key}"], 2, "ndio-luks2"),
    Contender("ndio-luks1", "ndio LUKS1",
              NBDKIT + ["{plugin}", "{luks1}", "passphrase=+{key}"], 1, "qemu-luks1"),
    Contender("serve-luks2", "ndio serve LUKS2, 4096",
              SERVE + ["--key-file={key}", "{luks2}"], 2, "ndio-luks2"),
    Contender("serve-luks1", "ndio serve LUKS1",
              SERVE + ["--key-file={key}", "{luks1}"], 1, "qemu-luks1"),
    # As the plugin's man page has it for small reads.
    Contender("ndio-nosr", "ndio, --no-sr",
              NBDKIT + ["--no-sr", "{plugin}", "{luks1}"], 0, "disk", "randread"),
    Contender("ndio-luks1-nosr", "ndio LUKS1, --no-sr",
              NBDKIT + ["--no-sr", "{plugin}", "{luks1}", "passphrase=+{key}"],
              1, "qemu-luks1", "randread"),
    Contender("qemu-luks1", "qemu-nbd LUKS1",
              QEMU + ["--object=secret,id=key,file={key}", "--image-opts",
                      "driver=luks,key-secret=key,file.driver=file,file.filename={luks1}"],
              1, "nbdkit-luks1"),
    Contender("nbdkit-luks1", "nbdkit LUKS1 filter",
              NBDKIT + ["--filter=luks", "file", "{luks1}", "passphrase=+{key}"],
              1, "qemu-luks1"),
    # End to end: who has the key before a server that has none.
    Contender("serve-gateway", "ndio serve LUKS1 before ndio serve",
              SERVE + ["--key-file={key}", "nbd+unix:///?socket={behind}"],
              1, "qemu-luks1", None, "serve"),
    Contender("ndio-gateway", "ndio LUKS1 before ndio",
              NBDKIT + ["{plugin}", "uri=nbd+unix:///?socket={behind}", "passphrase=+{key}"],
              1, "qemu-luks1", None, "ndio"),
    Contender("qemu-gateway", "qemu-nbd LUKS1 before nbdkit file",
              QEMU_CLIENT + ["--object=secret,id=key,file={key}", "--image-opts",
                             "driver=luks,key-secret=key,file.driver=nbd,"
                             "file.server.type=unix,file.server.path={behind}"],
              1, "qemu-luks1", None, "nbdkit-file"),
    # Each sector with a tag (AES-GCM). What has a trust file no other program may write.
    Contender("serve-direct", "ndio serve aead, no journal",
              SERVE + ["--key-file={key}", "{direct}"], 2, "serve-direct"),
    Contender("serve-journal", "ndio serve aead, journal",
              SERVE + ["--key-file={key}", "{journal}"], 2, "serve-journal"),
    Contender("serve-trusted", "ndio serve aead, no journal, trust file",
              SERVE + ["--key-file={key}", "--trust={trust}", "{trusted}"], 2, "serve-trusted"),
]}
PLAIN = ["disk", "disk-plain", "null", "bare", "serve", "ndio", "ndio-nosr", "nbdkit-file", "qemu",
         "nbd-server"]
ENCRYPTED = ["serve-luks2", "serve-luks1", "ndio-luks2", "ndio-luks1", "ndio-luks1-nosr",
             "qemu-luks1", "nbdkit-luks1"]
INTEGRITY = ["serve-direct", "serve-journal", "serve-trusted"]
END_TO_END = ["serve-gateway", "ndio-gateway", "qemu-gateway"]


def status(pid, field):
    """A number of /proc/PID/status; 0 if the process has gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def children(pid):
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        for thread in threads:
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                yield from (int(child) for child in file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass


def cpu_of(pid):
    """Seconds of all threads, those that ended too: the process's CPU clock, which is finer
    than the ticks of /proc/PID/stat."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def cpu_of_ended_children(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


class Server:
    """A contender that runs, within `with`. The raw disk is one without a process."""

    def __init__(self, bench, contender, **names):
        self.bench, self.contender = bench, contender
        self.offset = HEADER[1] if contender.luks == 0 else 0 # never the header
        base = bench.path(contender.who)
        self.names = {**bench.names, "sock": base + ".sock", "pid": base + ".pid",
                      "conf": base + ".conf", "log": base + ".log", **names}
        self.behind = contender.behind and Server(bench, CONTENDERS[contender.behind], **names)
        if self.behind:
            self.names["behind"] = self.behind.names["sock"]
        self.pid = self.process = None
        self.peak = 0

    def command(self):
        return [word.format(**self.names) for word in self.contender.command]

    def __enter__(self):
        if self.contender.command:
            program = self.command()[0]
            if not shutil.which(program):
                raise Failure(f"there is no {program} here")
            try:
                if self.behind:
                    self.behind.__enter__()
                self.start()
            except BaseException:
                self.stop()
                raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        for name in ("sock", "pid"):
            if os.path.exists(self.names[name]):
                os.unlink(self.names[name])
        with open(self.names["conf"], "w", encoding="utf-8") as file:
            file.write(NBD_SERVER_CONF.format(user=getpass.getuser(),
                                              group=grp.getgrgid(os.getgid()).gr_name,
                                              **self.names))
        with open(self.names["log"], "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        self.wait_until_ready()
        self.warm_up()

    def wait_until_ready(self):
        deadline = time.monotonic() + 60
        good_ends = (None, 0) if self.contender.command is NBD_SERVER else (None,)
        while not (os.path.exists(self.names["sock"]) and self.read_pid()):
            if self.process.poll() not in good_ends or time.monotonic() > deadline:
                with open(self.names["log"], encoding="utf-8", errors="replace") as log:
                    raise Failure("it didn't start: " + " | ".join(log.read().split("\n")[-4:]))
            time.sleep(0.005)

    def read_pid(self):
        try:
            with open(self.names["pid"], encoding="ascii") as file:
                self.pid = int(file.read())
        except (FileNotFoundError, ValueError):
            return False
        return True

    def warm_up(self):
        """The first connection makes threads and caches; it isn't timed."""
        self.bench.run(self.bench.names["load"], "-n", "1", "-w", "0", self.uri())

    def stop(self):
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
            self.wait_for_end()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.pid = self.process = None
        if self.behind:
            self.behind.stop()

    def wait_for_end(self):
        deadline = time.monotonic() + 60
        while os.path.exists(f"/proc/{self.pid}"):
            if self.process.poll() is not None and self.process.pid == self.pid:
                return
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)

    def uri(self):
        export = "disk" if self.contender.command is NBD_SERVER else ""
        return f"nbd+unix:///{export}?socket={self.names['sock']}"

    def fio_target(self):
        if not self.contender.command:
            return ["--ioengine=io_uring", "--direct=1", f"--filename={self.names['luks1']}"]
        return ["--ioengine=nbd", f"--uri={self.uri()}"]

    def processes(self):
        found, todo = [], [self.pid] + ([self.behind.pid] if self.behind else [])
        while todo:
            found.append(todo.pop())
            todo += children(found[-1])
        return found

    def look(self):
        """To be called now and then while it works: children take their peak with them."""
        if self.pid:
            self.peak = max(self.peak, sum(status(pid, "VmHWM") for pid in self.processes()))

    def cpu(self):
        """Seconds so far, with its children's; for those that end with their connection it
        waits. None without a process."""
        if not self.pid:
            return None
        deadline = time.monotonic() + 2
        servers = 2 if self.behind else 1
        while len(self.processes()) > servers and time.monotonic() < deadline:
            time.sleep(0.005)
        return sum(cpu_of(pid) for pid in self.processes()) + cpu_of_ended_children(self.pid)
