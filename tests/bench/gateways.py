"""What gateways cost: memory and processor time, for many disks on one machine, each an encrypted disk
behind one server. One `ndio serve --exports` for 50 of them, or one `ndio serve` for each.

    python3 -B tests/bench/gateways.py [--disks 1,10,100] [--mib 256] [--requests 20000]

Run it after `make`; it needs fio, and some GiB of disk space. It prints the table of doc/engines.md, and the
line below it, as they stand there, within some minutes. Only what a busy machine changes little is measured:
memory, and seconds of processor time; no time on the clock.
"""
import argparse
import datetime
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time

from servers import cpu_of

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SERVE = os.path.join(ROOT, "build", "ndio-serve")
VOLUME = 64 << 20
TABLE = 50 # exports of one `ndio serve`; it takes 64
CHEAP = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]


def memory_of(pid):
    """MiB that are the process's own: shared pages of programs count by their share (Pss)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("no Pss")


def threads_of(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def wait_for(path, process):
    deadline = time.monotonic() + 300
    while not (os.path.exists(path) and os.path.getsize(path)):
        if process.poll() is not None or time.monotonic() > deadline:
            with open(path.replace(".pid", ".log"), encoding="utf-8") as log:
                sys.exit(f"{process.args[0]} didn't start: {log.read()}")
        time.sleep(0.01)


class Gateways:
    """So many disks, each a copy of one volume; one server without a key has them all."""

    def __init__(self, folder, count, single):
        self.folder, self.count, self.single, self.processes = folder, count, single, []

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, name, command):
        pid_file = self.path(name + ".pid")
        process = subprocess.Popen(
            command + ["--socket", self.path(name + ".sock"), "--pid-file", pid_file],
            stdin=subprocess.DEVNULL, stderr=open(self.path(name + ".log"), "wb"))
        self.processes.append(process)
        wait_for(pid_file, process)
        return process

    def inner(self, number):
        return self.uri("inner", number)

    def uri(self, name, number):
        return f"nbd+unix:///disk{number}?socket={self.path(f'{name}{number // TABLE}.sock')}"

    def start_tables(self, name, lines, *options):
        """One server for each 50 lines."""
        started = []
        for first in range(0, self.count, TABLE):
            path = self.path(f"{name}{first // TABLE}")
            with open(path, "w", encoding="ascii") as file:
                file.writelines(" ".join(line) + "\n" for line in lines[first:first + TABLE])
            started.append(self.start(os.path.basename(path), [SERVE, *options, "--exports", path]))
        return started

    def __enter__(self):
        numbers, key = range(self.count), self.path("key")
        for number in numbers:
            subprocess.run(["cp", "--sparse=always", self.path("volume"), self.path(f"{number}.luks")], check=True)
        self.start_tables("inner", [(f"disk{n}", self.path(f"{n}.luks"), "none") for n in numbers],
                          "--max-connections=2048")
        if self.single:
            self.gateways = self.start_tables(
                "outer", [(f"disk{n}", self.inner(n), key) for n in numbers])
            self.uris = [self.uri("outer", n) for n in numbers]
        else:
            self.gateways = [self.start(f"one{n}", [SERVE, "--key-file", key, self.inner(n)])
                             for n in numbers]
            self.uris = [f"nbd+unix:///?socket={self.path(f'one{n}.sock')}" for n in numbers]
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
            process.wait()
        for number in range(self.count):
            os.unlink(self.path(f"{number}.luks"))

    def memory(self):
        return sum(memory_of(process.pid) for process in self.gateways)

    def threads(self):
        return sum(threads_of(process.pid) for process in self.gateways)

    def cpu(self):
        return sum(cpu_of(process.pid) for process in self.gateways)

    def load(self, *options):
        """The same work in all, divided among the disks, ten at a time. Seconds of processor
        time of the gateways."""
        before = self.cpu()
        for first in range(0, self.count, 10):
            clients = [subprocess.Popen(
                ["fio", "--name=load", "--thread", "--ioengine=nbd", f"--uri={uri}", "--size=32m",
                 "--offset=0", *options], stdout=subprocess.DEVNULL)
                for uri in self.uris[first:first + 10]]
            if any([client.wait() for client in clients]):
                sys.exit("fio failed")
        return self.cpu() - before


def measured(folder, count, single, args):
    with Gateways(folder, count, single) as gateways:
        idle, threads = gateways.memory(), gateways.threads()
        moved = max(args.mib // count, 1)
        requests = max(args.requests // count, 100)
        large = gateways.load("--rw=write", "--bs=1m", "--iodepth=8", f"--io_size={moved}m")
        small = gateways.load("--rw=randrw", "--bs=4k", "--iodepth=8", f"--io_size={requests * 4}k")
        used = gateways.memory()
    return (moved, idle, used, threads, large * 1024 / (moved * count), small * 1000 / (requests * count))


def memory_total():
    """GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def processor():
    with open("/proc/cpuinfo", encoding="ascii") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def print_row(count, single, row):
    moved, idle, used, threads, large, small = row
    processes = -(-count // TABLE) if single else count
    each = f" ({count // processes} each)" if single and processes > 1 else ""
    print(f"| {count} | {processes}{each} | {moved} MiB | {threads} | {idle:.0f} | {used:.0f} | "
          f"{idle / count:.0f}, {used / count:.0f} | {large:.1f} | {small:.3f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--disks", default="1,10,100")
    parser.add_argument("--mib", type=int, default=256, help="written in all")
    parser.add_argument("--requests", type=int, default=20000, help="of 4 KiB, in all")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)) # so that servers end, too
    with tempfile.TemporaryDirectory(prefix="ndio-gateways.") as folder:
        key = os.path.join(folder, "key")
        with open(key, "w", encoding="ascii", opener=lambda *a: os.open(*a, 0o600)) as file:
            file.write("correct horse battery staple")
        volume = os.path.join(folder, "volume")
        with open(volume, "wb") as file:
            file.truncate(VOLUME)
        subprocess.run([os.path.join(ROOT, "build", "ndio"), "format", "--key-file", key, *CHEAP,
                        volume], check=True)
        print("| disks | processes | written a disk | threads | MiB, idle | MiB, used | MiB a disk, idle and "
              "used | CPU s a GiB written | CPU s a 1,000 of 4 KiB |\n|" + "---|" * 9)
        for count in (int(count) for count in args.disks.split(",")):
            for single in (True, False) if count > 1 else (True,):
                print_row(count, single, measured(folder, count, single, args))
        print(f"\n({datetime.date.today()}; {os.cpu_count()} cores of an {processor()}, {memory_total():.1f} GiB, "
              f"Linux {platform.release()}; LUKS2, AES-256-XTS, 4096-byte sectors; "
              f"`--mib {args.mib} --requests {args.requests}`.)")


if __name__ == "__main__":
    main()
