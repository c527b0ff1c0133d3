"""How it grows: with client threads, with the size of the volume, and with what clients ask."""
import os
import socket
import subprocess
import threading
import time

import work
from disks import GIB, MIB, Failure, make_luks
from servers import CONTENDERS, NBDKIT, Contender, Server, status

THREADS = (1, 2, 4, 8, 16)
THREAD_JOBS = ("seq-read", "seq-write", "rand-read-1", "rand-write-1")
THREAD_WHO = ("ndio", "ndio-luks2", "ndio-luks1", "qemu-luks1", "nbdkit-luks1")
VOLUMES = (1, 16, 128, 1024) # GiB
VOLUME_WHO = ("ndio", "ndio-luks2", "ndio-luks1")
MEMORY_WHO = ("null", "ndio", "ndio-luks2", "ndio-luks1")
# Slow enough that each of its threads gets a request.
SLOW_NULL = Contender("null", "nbdkit null", NBDKIT + ["--filter=delay", "null", "size={size}",
                                                       "rdelay=50ms", "wdelay=50ms"])


def client_threads(bench):
    for count in THREADS:
        for job in bench.chosen_jobs(THREAD_JOBS):
            work.compare(bench, "scaling", work.JOBS[job], count, bench.chosen_who(THREAD_WHO))


# ---- memory ----

def growth(bench, who):
    """MiB by which the server's peak rises in a few rounds of 16 requests of 32 MiB at once."""
    contender, path = SLOW_NULL if who == "null" else CONTENDERS[who], bench.path("written")
    make_luks(path, contender.luks or 1, GIB, bench.names["key"], sparse=True)
    with Server(bench, contender, luks1=path, luks2=path) as server:
        before = status(server.pid, "VmRSS")
        with open(f"/proc/{server.pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5") # the peak is now
        for percent in ("100", "0", "50"):
            bench.run(bench.names["load"], "-d", "16", "-s", str(32 * MIB), "-n", "20",
                      "-w", percent, server.uri())
        return {"grown_MiB": (status(server.pid, "VmHWM") - before) / 1024}


def memory(bench, who=MEMORY_WHO):
    bench.measure("scaling", "memory", [(name, 1) for name in bench.chosen_who(who)], None,
                  lambda case, _: growth(bench, case[0]), rounds=min(3, bench.rounds))


# ---- volumes ----

def start_for(listener, command):
    """The server gets a socket on which a client waits already, as from systemd."""
    return subprocess.Popen(
        ["sh", "-c", 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&0 </dev/null', "sh",
         *command], stdin=listener, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def first_byte(bench, who, path):
    """From the server's start until a client that waits for it has read one block."""
    server = Server(bench, CONTENDERS[who], luks1=path, luks2=path)
    command = [word for word in server.command() if not word.startswith("--unix=")]
    if os.path.exists(server.names["sock"]):
        os.unlink(server.names["sock"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(server.names["sock"])
        listener.listen(4)
        client = subprocess.Popen([bench.names["load"], "-n", "1", "-w", "0", server.uri()],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        time.sleep(0.05) # until it is connected, so that its own start isn't in the time
        start = time.monotonic()
        process = start_for(listener, command)
    limit = threading.Timer(60, client.kill) # a wait with a timeout of its own polls, up to 50 ms
    limit.start()
    try:
        if client.wait():
            raise Failure("no first byte")
        return {"ms": (time.monotonic() - start) * 1000,
                "peak_MiB": status(process.pid, "VmHWM") / 1024}
    finally:
        limit.cancel()
        for child in (client, process):
            child.terminate()
            child.wait()


def volumes(bench, who=VOLUME_WHO, sizes=VOLUMES):
    """Sparse ones: what must not grow is what the server does and keeps, not the disk's use."""
    paths = {}
    for version in {CONTENDERS[name].luks or 1 for name in who}:
        for size in sizes:
            paths[version, size] = bench.path(f"volume{version}-{size}")
            make_luks(paths[version, size], version, size * GIB, bench.names["key"], sparse=True)
    bench.measure("scaling", "first-byte",
                  [(name, size) for name in bench.chosen_who(who) for size in sizes], None,
                  lambda case, _: first_byte(bench, case[0],
                                             paths[CONTENDERS[case[0]].luks or 1, case[1]]))
    for path in paths.values():
        os.unlink(path)


def measure(bench):
    memory(bench)
    volumes(bench)
    client_threads(bench)
