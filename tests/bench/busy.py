"""How busy all cores are, by what the kernel counts as idle."""
import os
import time

TICKS = os.sysconf("SC_CLK_TCK")


def idle_seconds():
    """Of all cores together, waiting for a disk included."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = file.readline().split()
    return (int(fields[4]) + int(fields[5])) / TICKS


class Busy:
    """Looked at from time to time while something runs."""

    def __init__(self):
        self.seen = []

    def look(self):
        self.seen.append((time.monotonic(), idle_seconds()))

    def share(self, seconds):
        """Of the cores' time, in the middle of the last seconds; None if they are too few. A
        program's start and end aren't in it."""
        end = self.seen[-1][0]
        middle = [seen for seen in self.seen
                  if 0.1 * seconds <= end - seen[0] <= 0.9 * seconds]
        if len(middle) < 2:
            return None
        (first, idle_first), (last, idle_last) = middle[0], middle[-1]
        share = 1 - (idle_last - idle_first) / (last - first) / os.cpu_count()
        return min(max(share, 0), 1)
