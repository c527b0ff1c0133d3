"""The report: a page of tables in Markdown, and the charts."""
import os

import charts
from samples import number
from servers import CONTENDERS
from work import JOBS

UNITS = {"ms": "ms", "peak_MiB": "peak MiB", "grown_MiB": "grown by MiB",
         "cpu_s/GiB": "CPU s/GiB", "client_cpu_s/GiB": "client's CPU s/GiB",
         "busy": "cores busy", "p50_us": "p50 us", "p99_us": "p99 us", "p99.9_us": "p99.9 us"}
X = {"servers": "connections", "clients": "connections", "limits": "bytes a call",
     "scaling": "threads", "first-byte": "GiB"}


# ---- words ----

def label(who):
    if who in CONTENDERS:
        return CONTENDERS[who].label
    return who.replace("-luks1", " LUKS1").replace("-luks2", " LUKS2, 4096") \
        .replace("ndio-copy", "ndio copy")


def title(job):
    return JOBS[job].label if job in JOBS else job


def with_interval(result):
    return f"{number(result['median'])} ({number(result['low'])} to {number(result['high'])})"


# ---- tables ----

def table(head, rows):
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]] + [""]


def beside(goal):
    """What may be in the way of a row."""
    told = [f"cores busy {with_interval(goal['busy'])}"] if "busy" in goal else []
    if "limit" in goal:
        told.append(f"{label(goal['limit']['who'])}: {with_interval(goal['limit'])}")
    return "; ".join(told)


def goal_rows(goals):
    for goal in goals:
        result = with_interval(goal) if "median" in goal else "not measured"
        if "of_disk" in goal:
            result += f"; of the raw disk {with_interval(goal['of_disk'])}"
        wanted = f"{goal['bound']} {goal['goal']}"
        if "or_disk" in goal:
            wanted += f", or {goal['or_disk']} of the raw disk"
        yield [goal["row"], wanted, result,
               {True: "yes", False: "**no**", None: "?"}[goal["pass"]], beside(goal)]


def series_tables(summary):
    """One for each job: its unit with the interval, and the medians of the rest."""
    jobs = {}
    for series in summary:
        jobs.setdefault((series["part"], series["job"]), []).append(series)
    for (part, job), group in jobs.items():
        metrics = [name for name in dict.fromkeys(n for s in group for n in s["metrics"])
                   if name != "GiB"]
        main = JOBS[job].unit if job in JOBS else "IOPS" if "rand" in job else metrics[0]
        metrics = [main] + [name for name in metrics if name not in ("MiB/s", "IOPS", main)]
        several = len({series["x"] for series in group}) > 1
        yield f"### {part}: {title(job)}"
        yield ""
        yield from table(
            ["", *([X.get(job, X[part])] if several else []),
             *(UNITS.get(name, name) for name in metrics)],
            [[label(s["who"]), *([str(s["x"])] if several else []),
              with_interval(s["metrics"][main]),
              *(number(s["metrics"][name]["median"]) if name in s["metrics"] else ""
                for name in metrics[1:])] for s in group])


# ---- the few figures that README.md has, to be put there ----

SHORT_JOBS = ("seq-write", "seq-read", "rand-write-32", "rand-read-32")
SHORT_WHO = {"serve-luks1": "`ndio serve`", "ndio-luks1": "nbdkit with ndio", "qemu-luks1": "qemu-nbd",
             "nbdkit-luks1": "nbdkit's LUKS filter"}


def short_table(summary):
    """A row for each job, over one connection."""
    def cell(job, who):
        found = [s["metrics"][JOBS[job].unit]["median"] for s in summary
                 if (s["part"], s["job"], s["who"], s["x"]) == ("servers", job, who, 1)]
        return f"{number(found[0])}" if found else ""

    rows = [(job, [cell(job, who) for who in SHORT_WHO]) for job in SHORT_JOBS]
    there = [i for i in range(len(SHORT_WHO)) if any(cells[i] for _, cells in rows)]
    if not there:
        return []
    return table(["an encrypted disk (LUKS1)", *(list(SHORT_WHO.values())[i] for i in there)],
                 [[charts.TITLES[job], *(cells[i] for i in there)] for job, cells in rows])


def told_of_disk(results):
    """How the raw disk was measured."""
    best = results.get("raw_disk")
    if not best:
        return []
    return ["**The raw disk** is fio with io_uring, direct, with huge pages and registered buffers and "
            "files; in order, at the best of several sizes and depths: "
            + "; ".join(f"{charts.TITLES[job]}: `{options}`" for job, options in best.items())
            + ". A plain fio, beside it, may see half of that: in its memory each 4 KiB are a segment of their "
            f"own, which the disk has to be told of ({results['machine'].get('disk_limits', '?')}).", ""]


def markdown(results, drawn):
    machine, settings = results["machine"], results["settings"]
    lines = [
        "# Benchmark of ndio", "",
        f"{machine['date']}, {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_GiB']} GiB, Linux {machine['kernel']}, disk {machine['disk']}; "
        f"load {machine['load_before']:.2f} before. "
        + ", ".join(f"{name}: {text}" for name, text in machine["versions"].items()) + ".", "",
        f"{settings['rounds']} rounds, samples of at most {settings['seconds']} s and "
        f"{settings['size_MiB']} MiB. Medians; in brackets their confidence interval, of 95 % "
        "or more with six rounds or more.", ""]
    for problem in results["problems"]:
        lines += [f"**Problem:** {problem}", ""]
    for chart in drawn:
        lines += [f"![{chart}]({chart}.svg)", ""]
    lines += ["## In short", "", *short_table(results["summary"]), *told_of_disk(results)]
    lines += ["## Goals", ""]
    lines += table(["row", "goal", "result", "reached", "beside it"],
                   goal_rows(results["goals"]))
    lines += ["## All", "", *series_tables(results["summary"])]
    return "\n".join(lines)


def write(results, out):
    text = markdown(results, charts.draw(results, out))
    with open(os.path.join(out, "report.md"), "w", encoding="utf-8") as file:
        file.write(text)
    if results["settings"]["quick"]:
        print("\n".join(table(["row", "goal", "result", "reached"],
                              goal_rows(results["goals"]))))
    print(f"{out}/report.md, results.json and charts")
