#!/usr/bin/env python3
"""cores.py COMMAND...: how long cores had nothing to do while COMMAND ran, and somebody waited for
another one. By the kernel's own tracing (tracefs, root): sched_switch and sched_waking."""
import collections
import contextlib
import os
import re
import subprocess
import sys

EVENTS = ["sched_switch", "sched_waking"]
TRACEFS = "/sys/kernel/tracing"
# Apart from what others trace.
OURS = os.path.join(TRACEFS, "instances", f"ndio-cores-{os.getpid()}")
BUFFER_KB = 65536 # for each core

LINE = re.compile(r"\s*.*-(\d+)\s+\[(\d+)\]\s+\S+\s+([\d.]+): (\w+): (.*)")
SWITCH = re.compile(r"prev_comm=.* prev_pid=(\d+) .*prev_state=(\S+) ==> .*next_pid=(\d+)")
WAKING = re.compile(r"comm=.* pid=(\d+)")

Event = collections.namedtuple("Event", "cpu time by sleeps runnable runs woken")


def put(name, text):
    with open(os.path.join(OURS, name), "w", encoding="ascii") as file:
        file.write(text)


@contextlib.contextmanager
def tracing():
    """What is traced is in the file trace until it ends."""
    if not os.path.exists(os.path.join(TRACEFS, "trace")):
        subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], check=True)
    os.mkdir(OURS)
    try:
        put("buffer_size_kb", str(BUFFER_KB))
        for event in EVENTS:
            put(f"events/sched/{event}/enable", "1")
        yield
    finally:
        os.rmdir(OURS)


def events(lines):
    for line in lines:
        if "LOST" in line:
            sys.exit("the trace has gaps: let COMMAND be shorter")
        found = LINE.match(line)
        if not found:
            continue
        by, cpu, time, name, text = \
            int(found[1]), int(found[2]), float(found[3]), found[4], found[5]
        if name == "sched_switch":
            pid, state, runs = SWITCH.search(text).groups()
            runnable = state.startswith("R")
            yield Event(cpu, time, by, int(pid), runnable, int(runs), None)
        else:
            yield Event(cpu, time, by, None, None, None, int(WAKING.search(text)[1]))


def with_starts(trace):
    """Some kernels don't trace how a core leaves idleness, only what the thread does then. It is
    taken to run since it was last woken."""
    running, idle_since, woken, found = {}, {}, {}, []
    for event in trace:
        if running.get(event.cpu) == 0 and event.by != 0:
            time = max(woken.get(event.by, event.time), idle_since[event.cpu])
            found.append(Event(event.cpu, time, 0, 0, False, event.by, None))
            running[event.cpu] = event.by
        if event.woken is not None:
            woken[event.woken] = event.time
        if event.runs is not None:
            running[event.cpu] = event.runs
            if event.runs == 0:
                idle_since[event.cpu] = event.time
    return sorted(trace + found, key=lambda event: event.time)


def waits(trace):
    """{index of the event where it ends: [(index where it began, thread)]}. The core is that of the
    last event: only there is it known where whoever was woken has been put."""
    since, found = {}, collections.defaultdict(list)
    for i, event in enumerate(trace):
        if event.woken is not None:
            since.setdefault(event.woken, i)
            continue
        if event.runs in since:
            found[i].append((since.pop(event.runs), event.runs))
        since.pop(event.sleeps, None)
        if event.sleeps and event.runnable:
            since[event.sleeps] = i
    return found


def shares(trace):
    """{what: seconds}, with at least one core idle, or none."""
    begins = collections.defaultdict(list)
    ends = waits(trace)
    for end, began in ends.items():
        for start, pid in began:
            begins[start].append((trace[end].cpu, pid))
    running, waiting = {}, collections.defaultdict(set)
    seconds, before = collections.Counter(), None
    for i, event in enumerate(trace):
        if before is not None:
            idle = {cpu for cpu, pid in running.items() if pid == 0}
            waited_for = {cpu for cpu, pids in waiting.items() if pids}
            what = "all cores busy" if not idle else \
                "a core is idle: somebody waits for another" if waited_for - idle else \
                "a core is idle: somebody is being woken there" if waited_for else \
                "a core is idle: nothing to run"
            seconds[what] += event.time - before
        before = event.time
        for cpu, pid in begins.get(i, ()):
            waiting[cpu].add(pid)
        for _, pid in ends.get(i, ()):
            waiting[event.cpu].discard(pid)
        if event.runs is not None:
            running[event.cpu] = event.runs
    return seconds


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with tracing():
        status = subprocess.run(sys.argv[1:], check=False).returncode
        put("tracing_on", "0")
        with open(os.path.join(OURS, "trace"), encoding="ascii", errors="replace") as file:
            seconds = shares(with_starts(list(events(file))))
    for what, length in seconds.most_common():
        print(f"{length / sum(seconds.values()) * 100:5.1f} %  {what}")
    return status


if __name__ == "__main__":
    sys.exit(main())
