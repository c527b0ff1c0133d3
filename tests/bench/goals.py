"""What has to be reached, as ratios (or differences) of two series in the same rounds."""
import collections

from samples import describe

# bound: "at least" or "at most". a and b are (who, x); or_disk: it is enough if a is this part
# of the raw disk. limit: who stands beside a, as what a can hardly exceed.
Goal = collections.namedtuple("Goal", "row bound goal part job metric a b sign or_disk limit",
                              defaults=("/", None, None))


def ratio(row, goal, job, metric, a, b, bound="at least", or_disk=None, limit=None):
    return Goal(row, bound, goal, "servers", job, metric, (a, 1), (b, 1), "/", or_disk, limit)


OURS = {"LUKS1": "ndio-luks1", "LUKS2, 4096": "ndio-luks2"}

GOALS = [
    *(ratio(f"{label} over own unencrypted, {work}", goal, job, metric, who, "ndio")
      for work, job, metric, goal in [
          ("sequential write", "seq-write", "MiB/s", 0.88),
          ("sequential read", "seq-read", "MiB/s", 0.97),
          ("random read 4 KiB depth 32", "rand-read-32", "IOPS", 0.96),
          ("random write 4 KiB depth 32", "rand-write-32", "IOPS", 0.96)]
      for label, who in OURS.items()),
    ratio("LUKS1 over qemu-nbd LUKS1, sequential write", 5, "seq-write", "MiB/s",
          "ndio-luks1", "qemu-luks1"),
    ratio("LUKS1 over nbdkit LUKS1 filter, sequential write", 7, "seq-write", "MiB/s",
          "ndio-luks1", "nbdkit-luks1"),
    ratio("LUKS2, 4096 over qemu-nbd LUKS1, sequential write", 6, "seq-write", "MiB/s",
          "ndio-luks2", "qemu-luks1"),
    ratio("LUKS2, 4096 over nbdkit LUKS1 filter, sequential write", 8, "seq-write", "MiB/s",
          "ndio-luks2", "nbdkit-luks1"),
    ratio("LUKS1 over qemu-nbd LUKS1, sequential read", 4.5, "seq-read", "MiB/s",
          "ndio-luks1", "qemu-luks1", or_disk=0.9),
    ratio("LUKS1 over nbdkit LUKS1 filter, sequential read (cold)", 3, "seq-read", "MiB/s",
          "ndio-luks1", "nbdkit-luks1", or_disk=0.9),
    *(ratio(f"LUKS1 over qemu-nbd LUKS1, random {way} 4 KiB depth 32", 1.6,
            f"rand-{way}-32", "IOPS", "ndio-luks1", "qemu-luks1", limit="bare")
      for way in ("read", "write")),
    ratio("the same, random read, nbdkit --no-sr", 1.6, "rand-read-32", "IOPS",
          "ndio-luks1-nosr", "qemu-luks1"),
    ratio("unencrypted over the raw disk, random read 4 KiB depth 32", 0.7, "rand-read-32",
          "IOPS", "ndio", "disk", limit="bare"),
    ratio("the same, nbdkit --no-sr", 0.7, "rand-read-32", "IOPS", "ndio-nosr", "disk"),
    ratio("unencrypted over the raw disk, sequential read", 0.95, "seq-read", "MiB/s",
          "ndio", "disk"),
    *(ratio(f"CPU seconds per GiB: LUKS1 over nbdkit LUKS1 filter, sequential {way}", 0.4,
            f"seq-{way}", "cpu_s/GiB", "ndio-luks1", "nbdkit-luks1", "at most")
      for way in ("write", "read")),
    Goal("peak memory above nbdkit null, 16 requests of 32 MiB, in MiB", "at most", 64,
         "scaling", "memory", "grown_MiB", ("ndio-luks2", 1), ("null", 1), "-"),
    Goal("time to first byte: a volume of 1 TiB over one of 1 GiB", "at most", 1.1,
         "scaling", "first-byte", "ms", ("ndio-luks2", 1024), ("ndio-luks2", 1)),
]


def needed(part):
    """{job: [who]}, in this part."""
    found = {}
    for goal in GOALS:
        if goal.part == part:
            found.setdefault(goal.job, {}).update(dict.fromkeys(
                [goal.a[0], goal.b[0]] + (["disk"] if goal.or_disk else [])
                + ([goal.limit] if goal.limit else [])))
    return {job: list(who) for job, who in found.items()}


def by_round(samples, goal, a, b, sign):
    """The rounds that have both: what the machine did meanwhile was the same for both."""
    tops, bottoms = (samples.values(goal.part, goal.job, *series, goal.metric)
                     for series in (a, b))
    return [tops[n] / bottoms[n] if sign == "/" else tops[n] - bottoms[n]
            for n in sorted(tops.keys() & bottoms.keys())]


def judge(samples):
    """A row for each goal; "pass" is None where nothing was measured."""
    rows = []
    for goal in GOALS:
        row = {"row": goal.row, "bound": goal.bound, "goal": goal.goal, "pass": None}
        if goal.or_disk:
            row["or_disk"] = goal.or_disk
        values = by_round(samples, goal, goal.a, goal.b, goal.sign)
        if values:
            result = describe(values)
            reached = result["median"] >= goal.goal if goal.bound == "at least" \
                else result["median"] <= goal.goal
            row |= result | {"pass": reached}
        of_disk = goal.or_disk and by_round(samples, goal, goal.a, ("disk", 1), "/")
        if of_disk:
            result = describe(of_disk)
            row |= {"of_disk": result,
                    "pass": bool(row["pass"]) or result["median"] >= goal.or_disk}
        busy = samples.values(goal.part, goal.job, *goal.a, "busy")
        if busy and goal.metric in ("MiB/s", "IOPS"):
            row["busy"] = describe(busy.values())
        of_limit = goal.limit and by_round(samples, goal, (goal.limit, 1), goal.b, goal.sign)
        if of_limit:
            row["limit"] = {"who": goal.limit, **describe(of_limit)}
        rows.append(row)
    return rows
