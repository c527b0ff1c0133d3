#!/usr/bin/python3
"""Measures ndio beside what a user would take instead: see README.md in this folder."""
import argparse
import atexit
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import sys
import tempfile

import clients
import goals
import limits
import report
import scaling
import work
from disks import GIB, MIB, TIMED_OFFSET, Failure, check_place, make_integrity, make_luks, run
from samples import Samples, in_rounds
from servers import CONTENDERS, ENCRYPTED, END_TO_END, INTEGRITY, PLAIN

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Bench:
    """What all parts share: settings, paths, and the samples."""

    run = staticmethod(run)

    def __init__(self, options):
        build = os.environ.get("NDIO_BUILD", os.path.join(ROOT, "build"))
        self.rounds, self.seconds, self.size = options.rounds, options.seconds, options.size * MIB
        self.jobs, self.who = options.jobs, options.who
        self.samples, self.problems = Samples(), []
        self.raw_disk = {}  # job: fio's options that are its best, once they are known
        check_place(options.dir, 8 * self.size)
        self.dir = tempfile.mkdtemp(prefix="disks-", dir=options.dir)
        atexit.register(shutil.rmtree, self.dir, ignore_errors=True)
        self.names = {
            "plugin": os.environ.get("NDIO_PLUGIN", f"{build}/nbdkit-ndio-plugin.so"),
            "bare": f"{build}/tests/bench/bare-plugin.so",
            "ndio": f"{build}/ndio", "ndio_serve": f"{build}/ndio-serve",
            "load": f"{build}/tests/clients/load",
            "ndio_load": f"{build}/tests/clients/ndio-load",
            "key": self.path("key"), "luks1": self.path("luks1"), "luks2": self.path("luks2"),
            **{name: self.path(name) for name in ("direct", "journal", "trusted", "trust")},
            "size": str(TIMED_OFFSET + self.size),
        }
        self.disks = [self.names["luks1"], self.names["luks2"]]
        with open(self.names["key"], "w", encoding="ascii") as file:
            file.write("correct horse battery staple")

    def path(self, name):
        return os.path.join(self.dir, name)

    def need_disks(self, who):
        """Made when a part needs them first."""
        words = {word for name in who for word in CONTENDERS[name].command or ()}
        for version, path in enumerate(self.disks[:2], 1):
            if not os.path.exists(path):
                make_luks(path, version, TIMED_OFFSET + self.size, self.names["key"])
        for name in "direct", "journal", "trusted":
            path = self.names[name]
            if "{%s}" % name in words and path not in self.disks:
                make_integrity(self.names["ndio"], path, TIMED_OFFSET + self.size, self.names["key"],
                               name == "journal", self.names["trust"] if name == "trusted" else None)
                self.disks.append(path)

    def chosen_jobs(self, jobs):
        return [job for job in jobs if not self.jobs or job in self.jobs]

    def chosen_who(self, who):
        return [name for name in who if not self.who or name in self.who]

    def problem(self, text):
        print(f"PROBLEM: {text}", file=sys.stderr, flush=True)
        self.problems.append(text)

    def measure(self, part, job, cases, check, sample, rounds=None):
        """Samples of a job. Cases are (who, x). check(case) comes first for each, and
        sample(case, round) returns what was measured; one that fails is out."""
        def fails(case, call, *args):
            try:
                return False, call(case, *args)
            except Failure as failure:
                self.problem(f"{part}, {job}, {case[0]} ({case[1]}): {failure}")
                self.samples.drop(part, job, *case)
                return True, None

        print(f"{part}: {job}, {', '.join(sorted({who for who, _ in cases}))}",
              file=sys.stderr, flush=True)
        cases = [case for case in cases if not check or not fails(case, check)[0]]
        out = set()
        for number, case in in_rounds(rounds or self.rounds, cases) if cases else ():
            if case in out:
                continue
            failed, metrics = fails(case, sample, number)
            if failed:
                out.add(case)
            else:
                self.samples.add(part, job, *case, number, metrics)


# ---- parts ----

def measure_servers(bench):
    for connections in (1, 4):
        for job in bench.chosen_jobs(work.JOBS):
            work.compare(bench, "servers", work.JOBS[job], connections,
                         bench.chosen_who(PLAIN + ENCRYPTED + END_TO_END + INTEGRITY))


def measure_goals(bench):
    """Only what the goals need."""
    for (job, connections), who in goals.needed("servers").items():
        if bench.chosen_jobs([job]):
            work.compare(bench, "servers", work.JOBS[job], connections, bench.chosen_who(who))
    needed = {job: who for (job, _), who in goals.needed("scaling").items()}
    if bench.chosen_jobs(["memory"]):
        scaling.memory(bench, needed["memory"])
    if bench.chosen_jobs(["first-byte"]):
        scaling.volumes(bench, needed["first-byte"], (1, 1024))


PARTS = {"servers": measure_servers, "clients": clients.measure, "limits": limits.measure,
         "scaling": scaling.measure}


# ---- what is told of the machine ----

def first_line(*command):
    try:
        return run(*command).splitlines()[0]
    except (Failure, OSError, IndexError):
        return ""


def disk_limits(place):
    """How much the disk takes at once, in the kernel's words."""
    number = os.stat(place).st_dev
    folder = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    queue = next((f"{path}/queue" for path in (folder, os.path.dirname(folder))
                  if os.path.isdir(f"{path}/queue")), "")
    told = []
    for name in ("max_segments", "max_sectors_kb"):
        with contextlib.suppress(OSError), open(f"{queue}/{name}", encoding="ascii") as file:
            told.append(f"{name} {file.read().strip()}")
    return ", ".join(told)


def machine(place):
    cpu = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                if line.startswith("model name")), platform.machine())
    return {
        "cpu": cpu, "cores": os.cpu_count(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "kernel": platform.release(), "load_before": os.getloadavg()[0],
        "disk_limits": disk_limits(place),
        "disk": first_line("findmnt", "-n", "-o", "SOURCE,FSTYPE", "-T", place),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "ndio": first_line("git", "-C", ROOT, "describe", "--always", "--dirty"),
            **{name: first_line(*command) for name, command in {
                "nbdkit": ["nbdkit", "--version"], "qemu": ["qemu-nbd", "--version"],
                "nbd-server": ["nbd-server", "-V"], "nbdcopy": ["nbdcopy", "--version"],
                "fio": ["fio", "--version"], "openssl": ["openssl", "version"]}.items()}},
    }


# ---- the command ----

def parse():
    def words(text):
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what the goals need")
    parser.add_argument("--rounds", type=int, help="default: 9, or 5 with --quick")
    parser.add_argument("--seconds", type=float, default=1,
                        help="that a sample takes at most; default: 1")
    parser.add_argument("--size", type=int, help="MiB that are measured; default: 1024, or 512")
    parser.add_argument("--jobs", type=words, help="only these, separated by commas")
    parser.add_argument("--who", type=words, help="only these contenders")
    parser.add_argument("--dir", help="where the disks are made (BENCH_DIR)")
    parser.add_argument("--out", help="where the results go")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    for name, full, quick in (("rounds", 9, 5), ("size", 1024, 512)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    if options.rounds < 1 or options.seconds <= 0 or options.size < 16 or options.size % 16:
        parser.error("--rounds from 1, --seconds above 0, --size in whole 16 MiB")
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(unknown)}")
    build = os.environ.get("NDIO_BUILD", os.path.join(ROOT, "build"))
    options.out = options.out or os.path.join(build, "bench")
    options.dir = os.path.abspath(options.dir or os.environ.get("BENCH_DIR") or options.out)
    return options


class Stopped(BaseException):
    """By SIGTERM. What was measured until then is kept."""


def stop(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Stopped(143)


def main():
    options = parse()
    if os.environ.get("NDIO_SANITIZE"):
        sys.exit("bench: figures of a sanitizer's build mean nothing")
    # Whatever stops it, servers and disks go away.
    signal.signal(signal.SIGTERM, stop)
    for place in (options.out, options.dir):
        os.makedirs(place, exist_ok=True)
    status = 0
    try:
        bench = Bench(options)
        facts = machine(options.dir)
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    try:
        if options.quick:
            measure_goals(bench)
        else:
            for part in options.parts or PARTS:
                PARTS[part](bench)
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    except (KeyboardInterrupt, Stopped) as end:
        status = end.args[0] if end.args else 130
        bench.problem("stopped before its end")
    results = {
        "machine": facts,
        "settings": {"quick": options.quick, "rounds": bench.rounds, "seconds": bench.seconds,
                     "size_MiB": options.size},
        "raw_disk": {job: " ".join(shape).replace("--", "") for job, shape in bench.raw_disk.items()},
        "goals": goals.judge(bench.samples), "summary": bench.samples.summary(),
        "problems": bench.problems, "samples": bench.samples.all,
    }
    with open(os.path.join(options.out, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    report.write(results, options.out)
    sys.exit(status or (1 if bench.problems else 0))


if __name__ == "__main__":
    main()
