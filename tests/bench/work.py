"""The work: fio's jobs, each checked before it is timed."""
import collections
import contextlib
import json
import os
import resource
import subprocess

from busy import Busy
from disks import CHECK_OFFSET, CHECK_SIZE, GIB, MIB, TIMED_OFFSET, Failure, drop_caches
from servers import CONTENDERS, Server

Job = collections.namedtuple("Job", "name label unit rw options")

JOBS = {job.name: job for job in [
    Job("seq-read", "sequential read, 1 MiB, depth 8", "MiB/s", "read",
        ["--bs=1M", "--iodepth=8"]),
    Job("seq-write", "sequential write, 1 MiB, depth 8", "MiB/s", "write",
        ["--bs=1M", "--iodepth=8"]),
    Job("rand-read-1", "random read, 4 KiB, depth 1", "IOPS", "randread",
        ["--bs=4k", "--iodepth=1"]),
    Job("rand-write-1", "random write, 4 KiB, depth 1", "IOPS", "randwrite",
        ["--bs=4k", "--iodepth=1"]),
    Job("rand-read-32", "random read, 4 KiB, depth 32", "IOPS", "randread",
        ["--bs=4k", "--iodepth=32"]),
    Job("rand-write-32", "random write, 4 KiB, depth 32", "IOPS", "randwrite",
        ["--bs=4k", "--iodepth=32"]),
    Job("mixed", "70 % reads and 30 % writes, random, 16 KiB, depth 16", "IOPS", "randrw",
        ["--bs=16k", "--iodepth=16", "--rwmixread=70"]),
]}
VERIFY = ["--verify=crc32c", "--verify_interval=4096", "--verify_state_save=0"]
PERCENTILES = {"p50_us": "50.000000", "p99_us": "99.000000", "p99.9_us": "99.900000"}


# What an engine does that wants all of a disk: memory and file are known to the ring beforehand, and
# memory is of huge pages. That counts most: else each 4 KiB are a segment of their own, of which a disk
# takes so many at once, and a virtual one handles each by itself. In order it may also cut requests
# into more and smaller ones.
AT_BEST = ["--fixedbufs", "--registerfiles"]
HUGE_PAGE = 2 * MIB
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
SHAPES = [(size, depth) for size in ("128k", "256k", "512k", "1M") for depth in (8, 32)]


def fio(bench, server, rw, offset, size, connections, *options, environment=None):
    """Runs it over size bytes at offset of the volume, a part for each connection. What it says
    of the job, and how busy the cores were."""
    part = size // connections // MIB * MIB
    output = bench.path("fio.json")
    command = ["fio", "--name=bench", *server.fio_target(), f"--rw={rw}",
               f"--offset={server.offset + offset}", f"--size={part}",
               f"--offset_increment={part}", f"--numjobs={connections}", "--thread",
               "--group_reporting", "--percentile_list=50:99:99.9", "--output-format=json",
               f"--output={output}", *options]
    busy = Busy()
    with open(bench.path("fio.log"), "w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env={**os.environ, **(environment or {})})
        try:
            while process.poll() is None:
                server.look()
                busy.look()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode:
            log.seek(0)
            said = [line for line in log.read().splitlines() if "connected" not in line]
            raise Failure(f"fio failed ({process.returncode}): {' | '.join(said[:3])}")
    with open(output, encoding="utf-8") as file:
        text = file.read()
    return json.loads(text[text.index("{"):])["jobs"][0], busy


def figures(job, busy):
    sides = [job[side] for side in ("read", "write") if job[side]["total_ios"]]
    seconds = max(side["runtime"] for side in sides) / 1000
    share = busy.share(seconds)
    return {"MiB/s": sum(side["io_bytes"] for side in sides) / MIB / seconds,
            "IOPS": sum(side["total_ios"] for side in sides) / seconds,
            "GiB": sum(side["io_bytes"] for side in sides) / GIB,
            **{name: max(side["clat_ns"]["percentile"][key] for side in sides) / 1000
               for name, key in PERCENTILES.items()},
            **({} if share is None else {"busy": share})}


def check(bench, contender, job, connections):
    """The job on a small part of the disk, every block with a checksum and its place, written
    or read by another program on the other side. Serves as warm-up, too."""
    area = (CHECK_OFFSET, CHECK_SIZE)
    if not contender.reference:
        return
    reference = CONTENDERS[contender.reference]
    # What a job of writes leaves out must be seen.
    prepare = ["--zero_buffers"] if job.rw.endswith("write") else [*VERIFY, "--do_verify=0"]
    with Server(bench, reference) as server:
        fio(bench, server, "write", *area, 1, "--bs=1M", "--end_fsync=1", *prepare)
    with Server(bench, contender) as server:
        fio(bench, server, job.rw, *area, connections, *job.options, *flush(job), *VERIFY)
    if flush(job):
        with Server(bench, reference) as server:
            fio(bench, server, "read", *area, 1, "--bs=1M", *VERIFY)


def disk_options(bench, job):
    """How fio gets most out of the raw disk: what a server by itself could get, at best. Which size and
    depth that is, for work in order, is tried once a run, and told in the report."""
    if job.name not in bench.raw_disk:
        bench.raw_disk[job.name] = best_shape(bench, job) if job.name.startswith("seq-") else job.options
    return [*bench.raw_disk[job.name], *AT_BEST]


def can_be_locked(shape):
    """Registered buffers count against the limit of locked memory, for who isn't root."""
    size, depth = shape
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    size = int(size.removesuffix("k").removesuffix("M")) * (MIB if size.endswith("M") else 1024)
    return os.geteuid() == 0 or limit == resource.RLIM_INFINITY or size * depth + HUGE_PAGE <= limit


def best_shape(bench, job):
    """The best of one or two short runs each."""
    def speed(shape):
        found = []
        for number in range(min(2, bench.rounds)):
            drop_caches(bench.disks)
            with Server(bench, CONTENDERS["disk"]) as server:
                done, busy = fio(bench, server, job.rw, TIMED_OFFSET, bench.size, 1, *shape, *AT_BEST, *flush(job),
                                 f"--runtime={bench.seconds / 2}", f"--randseed={number + 1}",
                                 environment=HUGE_PAGES)
            found.append(figures(done, busy)["MiB/s"])
        return max(found)

    shapes = [shape for shape in SHAPES if can_be_locked(shape)]
    if not shapes:
        raise Failure("the raw disk can't be measured at its best: the limit of locked memory (ulimit -l) is too low")
    return max(([f"--bs={size}", f"--iodepth={depth}"] for size, depth in shapes), key=speed)


def flush(job):
    """Writers flush at the end, in the time that is measured."""
    return [] if job.rw.endswith("read") else ["--end_fsync=1"]


def client_cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(bench, contender, job, connections, number):
    """One sample, of a server that was just started. Each byte is visited once at most, so
    that a server that caches meets a cold cache."""
    at_best = contender.who == "disk"
    options = [*(disk_options(bench, job) if at_best else job.options), *flush(job), f"--runtime={bench.seconds}",
               f"--randseed={number + 1}"]
    with Server(bench, contender) as server:
        drop_caches(bench.disks)
        before, client_before = server.cpu(), client_cpu()
        metrics = figures(*fio(bench, server, job.rw, TIMED_OFFSET, bench.size, connections,
                               *options, environment=HUGE_PAGES if at_best else None))
        client_used = client_cpu() - client_before
        if server.pid:
            metrics["cpu_s/GiB"] = (server.cpu() - before) / metrics["GiB"]
            server.look()
            metrics["peak_MiB"] = server.peak / 1024
        metrics["client_cpu_s/GiB"] = client_used / metrics["GiB"]
    return metrics


def compare(bench, part, job, connections, who):
    """One job, the contenders in turn."""
    bench.need_disks(who)
    who = [name for name in who if CONTENDERS[name].only in (None, job.rw)]

    def check_one(name):
        check(bench, CONTENDERS[name], job, connections)

    def time_one(name, number):
        return timed(bench, CONTENDERS[name], job, connections, number)

    bench.measure(part, job.name, [(name, connections) for name in who],
                  lambda case: check_one(case[0]), lambda case, n: time_one(case[0], n))
