#!/usr/bin/env python3
"""Read a CSV of sales, compute statistics, write a JSON report and an SVG plot.

usage: report.py sales.csv result.json plot.svg

Only the standard library is used. Rows that can't be read are counted by reason, never guessed.
"""
import csv
import datetime
import hashlib
import json
import math
import os
import platform
import statistics
import sys
from collections import Counter, defaultdict
from xml.sax.saxutils import escape

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
OUTLIER_FENCE = 3.0  # times the interquartile range
HISTOGRAM_BINS = 40


class Welford:
    """Mean and variance in one pass, without losing digits to large sums."""

    def __init__(self):
        self.n = 0
        self.mean = 0.0
        self.m2 = 0.0
        self.low = math.inf
        self.high = -math.inf

    def add(self, x):
        self.n += 1
        delta = x - self.mean
        self.mean += delta / self.n
        self.m2 += delta * (x - self.mean)
        self.low = min(self.low, x)
        self.high = max(self.high, x)

    def summary(self):
        if not self.n:
            return {"n": 0}
        deviation = math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else 0.0
        return {
            "n": self.n,
            "mean": round(self.mean, 4),
            "sd": round(deviation, 4),
            "min": round(self.low, 4),
            "max": round(self.high, 4),
        }


class Line:
    """Least squares of y over x, with the correlation and the standard error of the slope."""

    def __init__(self):
        self.n = 0
        self.sx = self.sy = self.sxx = self.sxy = self.syy = 0.0

    def add(self, x, y):
        self.n += 1
        self.sx += x
        self.sy += y
        self.sxx += x * x
        self.sxy += x * y
        self.syy += y * y

    def fit(self):
        vxx = self.sxx - self.sx * self.sx / self.n
        vxy = self.sxy - self.sx * self.sy / self.n
        vyy = self.syy - self.sy * self.sy / self.n
        slope = vxy / vxx
        intercept = (self.sy - slope * self.sx) / self.n
        rest = max(vyy - slope * vxy, 0.0)
        return {
            "n": self.n,
            "slope": slope,
            "intercept": intercept,
            "r": vxy / math.sqrt(vxx * vyy) if vyy > 0 else 0.0,
            "slope_se": math.sqrt(rest / (self.n - 2) / vxx) if self.n > 2 else 0.0,
        }


def percentile(ordered, p):
    """Linear interpolation between the two nearest ranks."""
    place = (len(ordered) - 1) * p / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def percentiles(values):
    ordered = sorted(values)
    return {f"p{p}": round(percentile(ordered, p), 4) for p in PERCENTILES}


def parse(row, first_day):
    """A clean row, or the reason why it is none."""
    try:
        day = datetime.date.fromisoformat(row["day"])
    except ValueError:
        return None, "bad day"
    for field in ("region", "product", "channel"):
        if not row[field]:
            return None, f"no {field}"
    for field in ("quantity", "price", "discount", "minutes"):
        if not row[field]:
            return None, f"no {field}"
    try:
        quantity = int(row["quantity"])
        price = float(row["price"])
        discount = float(row["discount"])
        minutes = float(row["minutes"])
    except ValueError:
        return None, "not a number"
    if quantity < 1 or price <= 0 or not 0 <= discount < 100:
        return None, "out of range"
    return {
        "day": (day - first_day).days,
        "month": row["day"][:7],
        "region": row["region"],
        "product": row["product"],
        "channel": row["channel"],
        "quantity": quantity,
        "price": price,
        "discount": discount,
        "minutes": minutes,
        "revenue": quantity * price * (1 - discount / 100),
        "note": row["note"],
    }, None


def read(path):
    """All clean rows, the rejected by reason, and the digest of the file as read."""
    rejected = Counter()
    rows = []
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    with open(path, newline="", encoding="utf-8") as f:
        for row in csv.DictReader(f):
            clean, reason = parse(row, datetime.date(2023, 1, 1))
            if clean:
                rows.append(clean)
            else:
                rejected[reason] += 1
    return rows, rejected, digest.hexdigest()


def fences(rows):
    """Per product: between which prices a row is ordinary."""
    prices = defaultdict(list)
    for row in rows:
        prices[row["product"]].append(row["price"])
    result = {}
    for product, values in prices.items():
        ordered = sorted(values)
        q1, q3 = percentile(ordered, 25), percentile(ordered, 75)
        spread = (q3 - q1) * OUTLIER_FENCE
        result[product] = (q1 - spread, q3 + spread)
    return result


def split_outliers(rows):
    limits = fences(rows)
    ordinary, outliers = [], []
    for row in rows:
        low, high = limits[row["product"]]
        (ordinary if low <= row["price"] <= high else outliers).append(row)
    return ordinary, outliers


def group_by(rows, *fields):
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[f] for f in fields)].append(row)
    return groups


def describe_groups(rows, *fields):
    result = []
    for key, members in sorted(group_by(rows, *fields).items()):
        revenue = Welford()
        for row in members:
            revenue.add(row["revenue"])
        result.append({
            **dict(zip(fields, key)),
            "orders": len(members),
            "quantity": sum(row["quantity"] for row in members),
            "revenue": round(math.fsum(row["revenue"] for row in members), 2),
            "revenue_per_order": revenue.summary(),
            "minutes": percentiles([row["minutes"] for row in members]),
        })
    return result


def price_trends(rows):
    """How prices move over time: percent in the two years, per product."""
    result = {}
    for (product,), members in sorted(group_by(rows, "product").items()):
        line = Line()
        for row in members:
            line.add(row["day"], row["price"])
        fit = line.fit()
        fit["percent_in_two_years"] = 100 * fit["slope"] * 730 / fit["intercept"]
        result[product] = {k: round(v, 6) for k, v in fit.items()}
    return result


def correlation_matrix(rows, fields):
    result = {}
    for a in fields:
        for b in fields:
            if a <= b:
                line = Line()
                for row in rows:
                    line.add(row[a], row[b])
                result[f"{a}~{b}"] = round(line.fit()["r"], 4)
    return result


def chi_squared(rows, a, b):
    """Are two categories independent? The statistic and its degrees of freedom."""
    table = Counter((row[a], row[b]) for row in rows)
    left = Counter(row[a] for row in rows)
    top = Counter(row[b] for row in rows)
    total = len(rows)
    value = 0.0
    for i in left:
        for j in top:
            expected = left[i] * top[j] / total
            value += (table[i, j] - expected) ** 2 / expected
    return {"chi2": round(value, 3), "df": (len(left) - 1) * (len(top) - 1)}


def histogram(values, bins):
    low, high = min(values), max(values)
    width = (high - low) / bins or 1.0
    counts = [0] * bins
    for v in values:
        counts[min(int((v - low) / width), bins - 1)] += 1
    return {"low": round(low, 4), "width": round(width, 4), "counts": counts}


def words(rows):
    counts = Counter()
    for row in rows:
        for word in row["note"].lower().replace(",", " ").replace('"', " ").split():
            counts[word] += 1
    return dict(counts.most_common(10))


def monthly(rows):
    return [
        {"month": month, "orders": len(members), "revenue": round(math.fsum(r["revenue"] for r in members), 2)}
        for (month,), members in sorted(group_by(rows, "month").items())
    ]


def season(months):
    """Amplitude of the yearly wave in monthly revenue, by its first Fourier term."""
    values = [m["revenue"] for m in months]
    mean = statistics.fmean(values)
    a = sum((v - mean) * math.cos(2 * math.pi * i / 12) for i, v in enumerate(values)) * 2 / len(values)
    b = sum((v - mean) * math.sin(2 * math.pi * i / 12) for i, v in enumerate(values)) * 2 / len(values)
    return {"relative_amplitude": round(math.hypot(a, b) / mean, 4), "peak_month": round((math.atan2(b, a) * 6 / math.pi) % 12, 2)}


# ---- the plot ----

WIDTH, HEIGHT, MARGIN = 960, 640, 60


def scale(value, low, high, start, end):
    return start + (value - low) / ((high - low) or 1) * (end - start)


def axis_text(x, y, text, anchor="middle"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}">{escape(text)}</text>'


def bars(months, top, bottom):
    most = max(m["revenue"] for m in months)
    step = (WIDTH - 2 * MARGIN) / len(months)
    out = []
    for i, m in enumerate(months):
        height = scale(m["revenue"], 0, most, 0, bottom - top)
        x = MARGIN + i * step
        out.append(f'<rect x="{x:.1f}" y="{bottom - height:.1f}" width="{step * 0.8:.1f}" height="{height:.1f}" fill="#4878a8">'
                   f'<title>{escape(m["month"])}: {m["revenue"]:.0f}</title></rect>')
        if i % 3 == 0:
            out.append(axis_text(x + step * 0.4, bottom + 16, m["month"]))
    out.append(axis_text(MARGIN - 8, top + 4, f"{most / 1000:.0f}k", "end"))
    out.append(axis_text(MARGIN - 8, bottom, "0", "end"))
    out.append(axis_text(WIDTH / 2, top - 12, "revenue per month"))
    return out


def curve(shape, top, bottom):
    most = max(shape["counts"])
    points = []
    for i, n in enumerate(shape["counts"]):
        x = scale(i + 0.5, 0, len(shape["counts"]), MARGIN, WIDTH - MARGIN)
        points.append(f"{x:.1f},{scale(n, 0, most, bottom, top):.1f}")
    high = shape["low"] + shape["width"] * len(shape["counts"])
    return [
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#a84848" stroke-width="2"/>',
        axis_text(MARGIN, bottom + 16, f"{shape['low']:.0f} min"),
        axis_text(WIDTH - MARGIN, bottom + 16, f"{high:.0f} min"),
        axis_text(WIDTH / 2, top - 12, "minutes per order, 99 % of the orders"),
    ]


def plot(months, shape):
    middle = HEIGHT / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *bars(months, MARGIN, middle - 30),
        *curve(shape, middle + MARGIN - 10, HEIGHT - 40),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


# ---- all of it ----

def report(rows, rejected, digest):
    ordinary, outliers = split_outliers(rows)
    months = monthly(ordinary)
    minutes = sorted(row["minutes"] for row in ordinary)
    shape = histogram(minutes[: int(len(minutes) * 0.99)], HISTOGRAM_BINS)
    numbers = ["discount", "minutes", "price", "quantity", "revenue"]
    return {
        "input": {"sha256": digest, "rows": len(rows) + sum(rejected.values()), "clean": len(rows),
                  "rejected": dict(sorted(rejected.items()))},
        "outliers": {"n": len(outliers), "largest": round(max((r["price"] for r in outliers), default=0.0), 2)},
        "columns": {name: percentiles([row[name] for row in ordinary]) for name in numbers},
        "by_region": describe_groups(ordinary, "region"),
        "by_product": describe_groups(ordinary, "product"),
        "by_region_and_channel": describe_groups(ordinary, "region", "channel"),
        "months": months,
        "season": season(months),
        "price_trends": price_trends(ordinary),
        "correlation": correlation_matrix(ordinary, numbers),
        "independence": {"region~channel": chi_squared(ordinary, "region", "channel"),
                         "product~channel": chi_squared(ordinary, "product", "channel")},
        "histogram": {"minutes": shape},
        "words": words(ordinary),
        "where": {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()},
    }, plot(months, shape)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    rows, rejected, digest = read(sys.argv[1])
    if len(rows) < 100:
        sys.exit(f"{sys.argv[1]}: only {len(rows)} rows can be read; at least 100 are needed")
    result, svg = report(rows, rejected, digest)
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1, sort_keys=True)
        f.write("\n")
    with open(sys.argv[3], "w", encoding="utf-8") as f:
        f.write(svg)
    print(f"{len(rows)} rows, {sum(rejected.values())} rejected, {result['outliers']['n']} outliers")


main()
