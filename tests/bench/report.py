"""The report: a page of tables in Markdown, and charts by gnuplot."""
import os
import shutil
import subprocess
import sys

from servers import CONTENDERS, ENCRYPTED
from work import JOBS

OURS, THEIRS, LIMIT = 0x1F5FA8, 0x9AA5B1, 0xD9DEE4
UNITS = {"ms": "ms", "peak_MiB": "peak MiB", "grown_MiB": "grown by MiB",
         "cpu_s/GiB": "CPU s/GiB", "client_cpu_s/GiB": "client's CPU s/GiB",
         "busy": "cores busy", "p50_us": "p50 us", "p99_us": "p99 us", "p99.9_us": "p99.9 us"}
X = {"servers": "connections", "clients": "connections", "limits": "bytes a call",
     "scaling": "threads", "first-byte": "GiB"}


# ---- words ----

def number(value):
    """Three digits that count, and no more."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


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


def markdown(results, charts):
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
    for chart in charts:
        lines += [f"![{chart}]({chart}.svg)", ""]
    lines += ["## Goals", ""]
    lines += table(["row", "goal", "result", "reached", "beside it"],
                   goal_rows(results["goals"]))
    lines += ["## All", "", *series_tables(results["summary"])]
    return "\n".join(lines)


# ---- charts ----

def find(results, part, job, x):
    return [s for s in results["summary"] if (s["part"], s["job"], s["x"]) == (part, job, x)]


def colour(who):
    return OURS if "ndio" in who else LIMIT if who == "disk" else THEIRS


def bars(results, part, job, x, metric, name):
    """gnuplot's commands for one panel: a bar for each contender, the first on top."""
    series = [s for s in find(results, part, job, x)
              if metric in s["metrics"] and s["who"] != "null"]
    if not series:
        return []
    # A gap between the plain and the encrypted.
    rows = [f'{-i - 0.5 * (s["who"] in ENCRYPTED)} "{label(s["who"])}" {m["median"]} '
            f'{m["low"]} {m["high"]} {colour(s["who"])} "{number(m["median"])}"'
            for i, s in enumerate(series) for m in [s["metrics"][metric]]]
    most = max(s["metrics"][metric]["high"] for s in series)
    return [f"$d{name} << EOD", *rows, "EOD",
            f'set title "{title(job)}: {UNITS.get(metric, metric)}"',
            f"set format x '{'%.0s%c' if most > 10000 else '%g'}'",
            f"set xrange [0:{most * 1.2}]", f"set yrange [{-len(series)}:0.6]",
            f"plot $d{name} using (0):1:(0):3:($1-0.36):($1+0.36):6:ytic(2) "
            "with boxxy fs solid noborder lc rgb variable, "
            "'' using 3:1:4:5 with xerrorbars pt -1 lc rgb 0x333333, "
            "'' using 5:1:7 with labels left offset 0.7"]


def lines(results, job, metric, name):
    """A panel with a line for each contender, over client threads."""
    series = {}
    for s in results["summary"]:
        if s["part"] == "scaling" and s["job"] == job and metric in s["metrics"]:
            series.setdefault(s["who"], []).append((s["x"], s["metrics"][metric]))
    if not series:
        return []
    commands, plots = [], []
    for i, (who, points) in enumerate(series.items()):
        commands += [f"$l{name}_{i} << EOD",
                     *(f"{x} {m['median']} {m['low']} {m['high']}" for x, m in points), "EOD"]
        style = (f"lc rgb {colour(who)} lw {2.5 if 'ndio' in who else 1.5} pt {i + 4} "
                 f"dt {1 + i % 3}")
        plots.append(f'$l{name}_{i} using 1:2:3:4 with yerrorlines {style} '
                     f'title "{label(who)}"')
    return [*commands, f'set title "{title(job)}: {metric}"', "plot " + ", ".join(plots)]


BARS = ["set style data boxes", "unset key", "set border 1", "set ytics nomirror scale 0",
        "set xtics nomirror", "set grid xtics lc rgb 0xe4e7eb"]
LINES = ["set key outside bottom center horizontal", "set border 3", "set tics nomirror",
         "set logscale x 2", "set xtics (1, 2, 4, 8, 16)", "set xlabel 'client threads'",
         "set yrange [0:*]", "set xrange [0.9:18]", "set grid ytics lc rgb 0xe4e7eb"]


def panels(results):
    """{chart: (commands for all panels, the panels)}"""
    def all_bars(part, metric_of, jobs):
        return [bars(results, part, job, 1, metric_of(job), i) for i, job in enumerate(jobs)]

    four = ["seq-write", "seq-read", "rand-write-32", "rand-read-32"]
    threads = ["seq-write", "seq-read", "rand-write-1", "rand-read-1"]
    return {
        "throughput": (BARS, all_bars("servers", lambda job: JOBS[job].unit, four)),
        "cpu": (BARS, all_bars("servers", lambda job: "cpu_s/GiB", four)),
        "threads": (LINES, [lines(results, job, JOBS[job].unit, i)
                            for i, job in enumerate(threads)]),
    }


def draw(results, out):
    """Writes CHART.svg and CHART.png; the names of those that there was something for."""
    if not shutil.which("gnuplot"):
        print("bench: no charts: there is no gnuplot here", file=sys.stderr)
        return []
    drawn = []
    for chart, (common, all_panels) in panels(results).items():
        todo = [panel for panel in all_panels if panel]
        if not todo:
            continue
        wide, high = (2, (len(todo) + 1) // 2) if len(todo) > 1 else (1, 1)
        for kind, terminal in (("svg", "svg noenhanced font 'sans-serif,12' background 'white'"),
                               ("png", "pngcairo noenhanced font 'sans-serif,10'")):
            script = [f"set terminal {terminal} size {wide * 560},{high * 300}",
                      f"set output '{os.path.join(out, chart)}.{kind}'", *common,
                      f"set multiplot layout {high},{wide}",
                      *(line for panel in todo for line in panel), "unset multiplot"]
            subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True)
        drawn.append(chart)
    return drawn


def write(results, out):
    text = markdown(results, draw(results, out))
    with open(os.path.join(out, "report.md"), "w", encoding="utf-8") as file:
        file.write(text)
    if results["settings"]["quick"]:
        print("\n".join(table(["row", "goal", "result", "reached"],
                              goal_rows(results["goals"]))))
    print(f"{out}/report.md, results.json and charts")
