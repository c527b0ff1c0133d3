#!/usr/bin/python3
"""find-in-memory.py PID FILE...: where a process's memory has the bytes of a file.

A line for each place: the address, "locked" or "loose" (can it be swapped out?), the mapping's
name, and the file. Only memory that can be written: a program's text has no secrets. Exit status
0 if there is one, 1 if there is none, 2 if it couldn't be looked at."""
import re
import sys

HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) \S+ \S+ \S+\s*(.*)")


def mappings(pid):
    """(start, end, name, locked) of those that can be written."""
    found = None
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as smaps:
        for line in smaps:
            if head := HEAD.match(line):
                start, end, mode, name = head.groups()
                found = (int(start, 16), int(end, 16), name or "anonymous", mode[1] == "w")
            elif line.startswith("VmFlags:") and found and found[3]:
                yield *found[:3], "lo" in line.split()


def places(memory, start, end, wanted):
    """Of one mapping, in steps that overlap by what is looked for."""
    step, longest = 16 << 20, max(len(what) for _, what in wanted)
    for at in range(start, end, step):
        memory.seek(at)
        try:
            data = memory.read(min(step + longest, end - at))
        except OSError:
            return # not there, or it was given back meanwhile
        for name, what in wanted:
            here = data.find(what)
            while 0 <= here < step:
                yield at + here, name
                here = data.find(what, here + 1)


def main():
    pid, files = sys.argv[1], sys.argv[2:]
    wanted = []
    for name in files:
        with open(name, "rb") as file:
            wanted.append((name, file.read()))
    if not all(what for _, what in wanted) or not wanted:
        sys.exit("find-in-memory: nothing to look for")
    count = 0
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end, name, locked in mappings(pid):
            for place, file in places(memory, start, end, wanted):
                print(f"{place:x} {'locked' if locked else 'loose'} {name} {file}")
                count += 1
    sys.exit(0 if count else 1)


if __name__ == "__main__":
    try:
        main()
    except (OSError, IndexError) as error:
        print(f"find-in-memory: {error}", file=sys.stderr)
        sys.exit(2)
