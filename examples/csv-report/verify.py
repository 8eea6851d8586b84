#!/usr/bin/env python3
"""Check what came back against the input, with other code than the report's.

usage: verify.py sales.csv result.json plot.svg
"""
import csv
import hashlib
import json
import statistics
import sys
import xml.etree.ElementTree


def fail(what, *values):
    sys.exit("verify: " + what + " " + " ".join(repr(v) for v in values))


def near(what, got, wanted, relative=1e-6):
    if abs(got - wanted) > relative * max(abs(wanted), 1e-9):
        fail(what, got, wanted)


def readable(row):
    if not all(row[f] for f in ("region", "price", "quantity")) or not row["quantity"].isdigit():
        return False
    return True


def check_numbers(rows, result):
    clean = [r for r in rows if readable(r)]
    if result["input"]["rows"] != len(rows) or result["input"]["clean"] != len(clean):
        fail("row counts", result["input"], len(rows), len(clean))
    if sum(result["input"]["rejected"].values()) != len(rows) - len(clean):
        fail("rejected rows", result["input"]["rejected"])
    groups = result["by_region"]
    if sum(g["orders"] for g in groups) + result["outliers"]["n"] != len(clean):
        fail("the regions do not add up", [g["orders"] for g in groups])
    # Prices were multiplied by 40 in one row of 1000: all of them must be found, and little else.
    wild = [r for r in clean if float(r["price"]) > 19 * {"lamp": 39, "chair": 89.5, "desk": 249, "shelf": 120,
                                                        "rug": 75.25, "clock": 19.99}[r["product"]]]
    near("outliers", result["outliers"]["n"], len(wild), 0.02)
    calm = [float(r["minutes"]) for r in clean if r not in wild] if len(clean) < 5000 else None
    if calm:
        near("median minutes", result["columns"]["minutes"]["p50"], statistics.median(calm), 0.01)


def check_trends(result):
    for product, fit in result["price_trends"].items():
        if not 10 < fit["percent_in_two_years"] < 14:
            fail("the price trend of 12 % was not found for " + product, fit)
    if not 0.1 < result["season"]["relative_amplitude"] < 0.5:
        fail("the season was not found", result["season"])


def check_plot(path, months):
    root = xml.etree.ElementTree.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    bars = len(root.findall(space + "rect")) - 1
    if root.tag != space + "svg" or bars != months or len(root.findall(space + "polyline")) != 1:
        fail("the plot", root.tag, bars, months)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    with open(sys.argv[1], "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    with open(sys.argv[1], newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    with open(sys.argv[2], encoding="utf-8") as f:
        result = json.load(f)
    if result["input"]["sha256"] != digest:
        fail("the sandbox read other bytes than were sent", result["input"]["sha256"], digest)
    check_numbers(rows, result)
    check_trends(result)
    check_plot(sys.argv[3], len(result["months"]))
    print(f"verified: {len(rows)} rows, kernel {result['where']['kernel']}")


main()
