"""What has to be reached, as ratios (or differences) of two series in the same rounds."""
import collections

from samples import describe

# bound: "at least" or "at most". a and b are (who, x); or_disk: it is enough if a is this part
# of the raw disk. Without b it is a alone. limit: who stands beside a, as what a can hardly exceed.
Goal = collections.namedtuple("Goal", "row bound goal part job metric a b sign or_disk limit",
                              defaults=("/", None, None))


def ratio(row, goal, job, metric, a, b, bound="at least", or_disk=None, limit=None, x=1):
    return Goal(row, bound, goal, "servers", job, metric, (a, x), (b, x), "/", or_disk, limit)


OURS = {"LUKS1": "ndio-luks1", "LUKS2, 4096": "ndio-luks2"}
INTEGRITY = {"serve-direct": "ndio serve, aead, no journal,", "serve-journal": "ndio serve, aead, journal,"}

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
    *(ratio(f"ndio serve, LUKS2, 4096, over the plugin, {connections}{work}", goal, job, metric,
            "serve-luks2", "ndio-luks2", x=x)
      for x, connections, small in ((1, "", 1.6), (4, "four connections, ", 1.2))
      for work, job, metric, goal in [
          ("random read 4 KiB depth 32", "rand-read-32", "IOPS", small),
          ("random write 4 KiB depth 32", "rand-write-32", "IOPS", small),
          ("sequential read", "seq-read", "MiB/s", 1),
          ("sequential write", "seq-write", "MiB/s", 1)]),
    *(ratio(f"ndio serve, LUKS1, over qemu-nbd LUKS1, random {way} 4 KiB depth {depth}", goal,
            f"rand-{way}-{depth}", "IOPS", "serve-luks1", "qemu-luks1")
      for way, depth, goal in (("read", 32, 2), ("write", 32, 2), ("read", 1, 1.4))),
    ratio("ndio serve, LUKS2, 4096, over the raw disk, random read 4 KiB depth 32", 0.8,
          "rand-read-32", "IOPS", "serve-luks2", "disk", limit="serve"),
    *(ratio("end to end, ndio serve before ndio serve, over qemu-nbd LUKS1 before nbdkit file, "
            f"random read 4 KiB depth {depth}", goal, f"rand-read-{depth}", "IOPS",
            "serve-gateway", "qemu-gateway", limit="ndio-gateway")
      for depth, goal in ((32, 1.8), (1, 1.4))),
    ratio("CPU seconds per GiB: ndio serve over the plugin, LUKS2, 4096, random read 4 KiB", 0.6,
          "rand-read-32", "cpu_s/GiB", "serve-luks2", "ndio-luks2", "at most"),
    *(ratio(f"{label} over LUKS2, 4096, {work}", goal, job, metric, who, "serve-luks2")
      for work, job, metric, goals in [
          ("sequential read", "seq-read", "MiB/s", (0.85, 0.85)),
          ("random read 4 KiB depth 32", "rand-read-32", "IOPS", (0.8, 0.8)),
          ("sequential write", "seq-write", "MiB/s", (0.8, 0.5)),
          ("random write 4 KiB depth 32", "rand-write-32", "IOPS", (0.5,))] # a journal's has none
      for (who, label), goal in zip(INTEGRITY.items(), goals)),
    *(ratio(f"aead with a trust file over one without, {work}", 0.9, job, metric,
            "serve-trusted", "serve-direct")
      for work, job, metric in [
          ("sequential read", "seq-read", "MiB/s"), ("sequential write", "seq-write", "MiB/s"),
          ("random read 4 KiB depth 32", "rand-read-32", "IOPS"),
          ("random write 4 KiB depth 32", "rand-write-32", "IOPS")]),
    Goal("peak memory of ndio serve above its start, 16 requests of 32 MiB, in MiB", "at most", 64,
         "scaling", "memory", "grown_MiB", ("serve-luks2", 1), None, "-"),
    Goal("peak memory above nbdkit null, 16 requests of 32 MiB, in MiB", "at most", 64,
         "scaling", "memory", "grown_MiB", ("ndio-luks2", 1), ("null", 1), "-"),
    Goal("time to first byte: a volume of 1 TiB over one of 1 GiB", "at most", 1.1,
         "scaling", "first-byte", "ms", ("ndio-luks2", 1024), ("ndio-luks2", 1)),
]


def needed(part):
    """{(job, connections): [who]}, in this part. Of volumes' sizes: 1."""
    found = {}
    for goal in GOALS:
        if goal.part == part:
            x = goal.a[1] if part == "servers" else 1
            found.setdefault((goal.job, x), {}).update(dict.fromkeys(
                [series[0] for series in (goal.a, goal.b) if series] + (["disk"] if goal.or_disk else [])
                + ([goal.limit] if goal.limit else [])))
    return {job: list(who) for job, who in found.items()}


def by_round(samples, goal, a, b, sign):
    """The rounds that have both: what the machine did meanwhile was the same for both."""
    tops = samples.values(goal.part, goal.job, *a, goal.metric)
    if not b:
        return list(tops.values())
    bottoms = samples.values(goal.part, goal.job, *b, goal.metric)
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
