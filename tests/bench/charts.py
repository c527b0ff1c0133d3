"""The charts, by gnuplot: for who has never heard of any of this. Medians, and their interval as a thin
line. A chart has a column for each kind of disk, and a row for each job; a title says what is counted,
and whether more or less of it is better.
"""
import collections
import os
import shutil
import subprocess
import sys

from samples import number
from servers import ENCRYPTED, END_TO_END, PLAIN
from work import JOBS

OURS, OURS_TOO, THEIRS, LIMIT = "0x1F5FA8", "0x4FA3D9", "0x7B8794", "0xC2410C"

TITLES = {
    "seq-write": "sequential writes, 1 MiB each, 8 at a time",
    "seq-read": "sequential reads, 1 MiB each, 8 at a time",
    "rand-write-32": "random writes, 4 KiB each, 32 at a time",
    "rand-read-32": "random reads, 4 KiB each, 32 at a time",
    "rand-write-1": "random writes, 4 KiB each, one at a time",
    "rand-read-1": "random reads, 4 KiB each, one at a time",
    "mixed": "70 % reads and 30 % writes, random, 16 KiB each, 16 at a time",
}
UNITS = {"MiB/s": "MiB a second", "IOPS": "requests a second", "cpu_s/GiB": "CPU seconds for each GiB"}
LESS_IS_BETTER = ("cpu_s/GiB",)

# What a stranger knows them by. Who isn't here isn't drawn: limits of nbdkit, and variants.
NAMES = {
    "serve": "ndio serve", "ndio": "ndio in nbdkit", "nbdkit-file": "nbdkit file", "qemu": "qemu-nbd",
    "nbd-server": "nbd-server",
    "serve-luks2": "ndio serve, LUKS2", "serve-luks1": "ndio serve, LUKS1",
    "ndio-luks2": "ndio in nbdkit, LUKS2", "ndio-luks1": "ndio in nbdkit, LUKS1",
    "qemu-luks1": "qemu-nbd, LUKS1", "nbdkit-luks1": "nbdkit luks filter, LUKS1",
    "serve-gateway": "ndio serve before ndio serve", "ndio-gateway": "ndio before ndio, in nbdkit",
    "qemu-gateway": "qemu-nbd before nbdkit file",
}
COLUMNS = [("Not encrypted", PLAIN), ("Encrypted, the server has the key", ENCRYPTED),
           ("Encrypted, the client has the key", END_TO_END)]

# Pixels.
WIDE, TOP, BAR, HEAD, FOOT = 500, 50, 21, 42, 8
NAME_WIDE = 195  # of a bar's name
LINES_HIGH, KEY_HIGH = 316, 56

JOBS_SHOWN = ("seq-write", "seq-read", "rand-write-32", "rand-read-32")
THREAD_JOBS = ("seq-write", "seq-read", "rand-write-1", "rand-read-1")

def better(metric):
    return "less is better" if metric in LESS_IS_BETTER else "more is better"


def colour(who):
    return OURS if "ndio" in NAMES[who] else THEIRS


# ---- bars ----

def values(results, job, metric, who):
    """{who: the metric}, over one connection, of those of them that were measured."""
    found = {s["who"]: s["metrics"][metric] for s in results["summary"]
             if (s["part"], s["job"], s["x"]) == ("servers", job, 1) and metric in s["metrics"]}
    return {name: found[name] for name in who if name in NAMES and name in found}


def limit(results, job, metric):
    """The raw disk's, where it was measured at its best: else it is no limit."""
    if job not in results.get("raw_disk", {}):
        return None
    found = [s["metrics"][metric]["median"] for s in results["summary"] if metric in s["metrics"] and
             (s["part"], s["job"], s["who"], s["x"]) == ("servers", job, "disk", 1)]
    return found[0] if found else None


def thousands(value):
    """As a reader of 56915 would say it."""
    return f"{value / 1000:.0f} 000" if value >= 10000 else number(value)


class Page:
    """A chart's size in pixels, and places on it from its top left as gnuplot wants them."""

    def __init__(self, wide, high):
        self.wide, self.high = wide, high

    def at(self, x, y):
        return f"screen {x / self.wide:.5f},screen {1 - y / self.high:.5f}"

    def margins(self, left, top, right, bottom):
        return [f"set lmargin at screen {left / self.wide:.5f}", f"set rmargin at screen {right / self.wide:.5f}",
                f"set tmargin at screen {1 - top / self.high:.5f}",
                f"set bmargin at screen {1 - bottom / self.high:.5f}"]

    def text(self, x, y, text, look=""):
        return f'set label "{text}" at {self.at(x, y)} {look}'


def bars(name, shown, most, disk):
    """What is inside of a panel: a bar for each contender with its figure behind it, and the raw disk as a
    line across."""
    rows = [f'{-i} "{NAMES[who]}" {m["median"]} {m["low"]} {m["high"]} {colour(who)} '
            f'"{thousands(m["median"])}"' for i, (who, m) in enumerate(shown.items())]
    commands = [f"$d{name} << EOD", *rows, "EOD", f"set xrange [0:{most * 1.25}]",
                f"set yrange [{0.5 - len(shown)}:{0.5 if disk is None else 1.3}]"]
    if disk is not None:
        # Where there is room for its words.
        side = "right offset -0.6,0" if disk > most / 2 else "left offset 0.6,0"
        commands += [f"set arrow from {disk},graph 0 to {disk},graph 1 nohead back lw 1.5 dt 2 lc rgb {LIMIT}",
                     f'set label "raw disk {thousands(disk)}" at {disk},0.95 {side} tc rgb {LIMIT}']
    return [*commands,
            f"plot $d{name} using (0):1:(0):3:($1-0.36):($1+0.36):6:ytic(2) "
            "with boxxy fs solid noborder lc rgb variable, "
            "'' using 3:1:4:5 with xerrorbars pt -1 lc rgb 0x333333, "
            "'' using 5:1:7 with labels left offset 1 boxed"]


def bar_chart(results, metric_of):
    """(page, gnuplot's commands); None: nothing was measured."""
    jobs = [job for job in JOBS_SHOWN if values(results, job, metric_of(job), NAMES)]
    columns = [(head, who) for head, who in COLUMNS
               if any(values(results, job, metric_of(job), who) for job in jobs)]
    if not columns:
        return None
    tall = [HEAD + FOOT + BAR * (1 + max(len(values(results, job, metric_of(job), who)) for _, who in columns))
            for job in jobs]
    page, commands = Page(WIDE * len(columns), TOP + sum(tall)), []
    for row, job in enumerate(jobs):
        metric, top = metric_of(job), TOP + sum(tall[:row])
        disk = limit(results, job, metric)
        most = max([m["high"] for m in values(results, job, metric, NAMES).values()] + [disk or 0])
        for column, (head, who) in enumerate(columns):
            shown, left = values(results, job, metric, who), column * WIDE
            if not shown:
                continue
            lines = len(shown) + (0 if disk is None else 0.8)
            commands += ["unset arrow", "unset label",
                         *([page.text(left + 14, TOP / 2, head, 'font ",17"')] if row == 0 else []),
                         page.text(left + 14, top + 12, TITLES[job], 'font ",13"'),
                         page.text(left + 14, top + 28, f"{UNITS[metric]}: {better(metric)}", "tc rgb 0x555555"),
                         *page.margins(left + NAME_WIDE, top + HEAD, left + WIDE - 10, top + HEAD + BAR * lines),
                         *bars(f"{row}_{column}", shown, most, disk)]
    return page, [*BARS, *commands]


# ---- lines ----

def line_series(results, job, metric):
    """{who: [(client threads, the metric)]}"""
    found = collections.defaultdict(list)
    for s in results["summary"]:
        if (s["part"], s["job"]) == ("scaling", job) and metric in s["metrics"] and s["who"] in ENCRYPTED:
            found[s["who"]].append((s["x"], s["metrics"][metric]))
    return found


def style(who, everybody):
    """The same in all panels: a colour for a program of ours, LUKS2 with a line that isn't broken."""
    ours = "ndio" in NAMES[who]
    line = OURS_TOO if ours and "nbdkit" in NAMES[who] else OURS if ours else THEIRS
    return (f"lc rgb {line} lw {2.5 if ours else 1.5} pt {everybody.index(who) + 4} "
            f"dt {1 if 'LUKS2' in NAMES[who] else 2 if ours else 3}")


def line_chart(results):
    """Over client threads, with one legend below all."""
    jobs = [job for job in THREAD_JOBS if line_series(results, job, JOBS[job].unit)]
    if not jobs:
        return None
    everybody = list(dict.fromkeys(who for job in jobs for who in line_series(results, job, JOBS[job].unit)))
    rows = (len(jobs) + 1) // 2
    page, commands = Page(2 * WIDE, TOP + rows * LINES_HIGH + KEY_HIGH), []
    for i, job in enumerate(jobs):
        left, top, metric = i % 2 * WIDE, TOP + i // 2 * LINES_HIGH, JOBS[job].unit
        plots = []
        for who, points in line_series(results, job, metric).items():
            name = f"$l{i}_{everybody.index(who)}"
            commands += [f"{name} << EOD", *(f"{x} {m['median']} {m['low']} {m['high']}" for x, m in points), "EOD"]
            plots += [f"{name} using 1:2:3:4 with yerrorbars pt -1 lw 1 lc rgb 0x333333 notitle",
                      f"{name} using 1:2 with linespoints {style(who, everybody)} notitle"]
        commands += ["unset label",
                     *([page.text(14, TOP / 2, "Encrypted, by the number of client threads", 'font ",17"')]
                       if i == 0 else []),
                     page.text(left + 14, top + 12, TITLES[job], 'font ",13"'),
                     page.text(left + 14, top + 28, f"{UNITS[metric]}: {better(metric)}", "tc rgb 0x555555"),
                     *page.margins(left + 70, top + HEAD + 6, left + WIDE - 16, top + LINES_HIGH - 56),
                     "plot " + ", ".join(plots)]
    bottom = TOP + rows * LINES_HIGH
    commands += ["unset label", "unset border", "unset tics", "unset xlabel", "unset grid", "unset logscale",
                 "set key center center horizontal samplen 5 width 3", "set xrange [0:1]", "set yrange [0:1]",
                 *page.margins(20, bottom, 2 * WIDE - 20, bottom + KEY_HIGH - 6),
                 "plot " + ", ".join(f'NaN with linespoints {style(who, everybody)} title "{NAMES[who]}"'
                                     for who in everybody)]
    return page, [*LINES, *commands]


# ---- all ----

# No ticks: the figures are there, and nothing goes through them, not even the raw disk's line.
BARS = ["set style data boxes", "unset key", "set border 2 lc rgb 0x9aa5b1", "set ytics nomirror scale 0 tc rgb 0x000000",
        "unset xtics", "set style textbox opaque fillcolor rgb 0xffffff noborder margins 0.3,0.2"]
LINES = ["unset key", "set border 3 lc rgb 0x9aa5b1", "set tics nomirror tc rgb 0x333333", "set logscale x 2",
         "set xtics (1, 2, 4, 8, 16)", "set xlabel 'client threads' offset 0,0.6", "set yrange [0:*]",
         "set xrange [0.75:20]", "set format y '%.0f'", "set grid ytics lc rgb 0xe4e7eb"]


def all_charts(results):
    return {"throughput": bar_chart(results, lambda job: JOBS[job].unit),
            "cpu": bar_chart(results, lambda job: "cpu_s/GiB"), "threads": line_chart(results)}


def draw(results, out):
    """Writes CHART.svg and CHART.png; the names of those that there was something for."""
    if not shutil.which("gnuplot"):
        print("bench: no charts: there is no gnuplot here", file=sys.stderr)
        return []
    drawn = {name: chart for name, chart in all_charts(results).items() if chart}
    for name, (page, commands) in drawn.items():
        for kind, terminal in (("svg", "svg noenhanced font 'sans-serif,12' background 'white'"),
                               ("png", "pngcairo noenhanced font 'sans-serif,9'")):
            script = [f"set terminal {terminal} size {page.wide},{page.high}",
                      f"set output '{os.path.join(out, name)}.{kind}'", "set multiplot", *commands,
                      "unset multiplot"]
            subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True)
    return list(drawn)
