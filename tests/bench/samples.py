"""Samples: one measurement each, made in rounds, and what they say together."""
import math
import statistics


def in_rounds(count, cases):
    """Yields (round, case). A round starts with another case than the last two did, and every
    second one runs backwards: a place in the order, or a neighbour, is nobody's alone."""
    for number in range(count):
        first = number // 2 % len(cases)
        order = cases[first:] + cases[:first]
        for case in order if number % 2 == 0 else reversed(order):
            yield number, case


def interval(values, level=0.95):
    """Confidence interval of the median by order statistics, which asks nothing of the
    distribution: (low, high, its level). With fewer than six values the level isn't reached,
    and the interval is from the least to the greatest."""
    values, count = sorted(values), len(values)

    def covers(cut):
        return 1 - 2 * sum(math.comb(count, i) for i in range(cut + 1)) / 2**count

    cut = max((i for i in range((count + 1) // 2) if covers(i) >= level), default=0)
    return values[cut], values[count - 1 - cut], covers(cut)


def number(value):
    """Three digits that count, and no more."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def describe(values):
    low, high, level = interval(values)
    return {"median": statistics.median(values), "low": low, "high": high,
            "level": round(level, 4), "count": len(values)}


class Samples:
    """x is what a series is drawn over: connections, or the GiB of a volume."""

    def __init__(self):
        self.all = []

    def add(self, part, job, who, x, number, metrics):
        self.all.append({"part": part, "job": job, "who": who, "x": x, "round": number,
                         **metrics})

    def drop(self, part, job, who, x):
        self.all = [s for s in self.all
                    if (s["part"], s["job"], s["who"], s["x"]) != (part, job, who, x)]

    def values(self, part, job, who, x, metric):
        """{round: value}"""
        return {s["round"]: s[metric] for s in self.all if metric in s and
                (s["part"], s["job"], s["who"], s["x"]) == (part, job, who, x)}

    def summary(self):
        """One for each part, job, who and x, in the order in which they came."""
        groups = {}
        for sample in self.all:
            key = tuple((name, sample[name]) for name in ("part", "job", "who", "x"))
            groups.setdefault(key, []).append(sample)
        return [dict(key) | {"metrics": {
                    name: describe([s[name] for s in group if name in s])
                    for name in group[0] if name not in dict(key) and name != "round"}}
                for key, group in groups.items()]
