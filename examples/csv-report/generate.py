#!/usr/bin/env python3
"""Write a CSV of sales that looks like real life, the same for the same seed.

usage: generate.py ROWS [SEED] > sales.csv

Columns: id, day, region, product, channel, quantity, price, discount, minutes, note.
There are gaps, a few absurd values, quoted notes with commas and quotes, and a trend.
"""
import csv
import datetime
import math
import random
import sys

REGIONS = [("north", 1.0, 30), ("south", 0.8, 25), ("east", 1.3, 20), ("west", 0.9, 15), ("islands", 0.5, 10)]
PRODUCTS = [("lamp", 39.0), ("chair", 89.5), ("desk", 249.0), ("shelf", 120.0), ("rug", 75.25), ("clock", 19.99)]
CHANNELS = [("shop", 50), ("web", 40), ("phone", 10)]
NOTES = ["", "", "", "", 'said "fine"', "gift, wrapped", "late, called twice", "r\u00fcckgabe", "2 boxes"]
FIRST_DAY = datetime.date(2023, 1, 1)
DAYS = 730


def weighted(rng, rows):
    return rng.choices(rows, weights=[row[-1] for row in rows])[0]


def one_row(rng, number):
    day = rng.randrange(DAYS)
    region, level, _ = weighted(rng, REGIONS)
    product, list_price = rng.choice(PRODUCTS)
    channel, _ = weighted(rng, CHANNELS)
    season = 1.0 + 0.35 * math.sin(2 * math.pi * day / 365.25)
    quantity = 1 + int(rng.expovariate(1.0 / (2.0 * season * level)))
    discount = rng.choice([0, 0, 0, 5, 10, 15, 25])
    # Prices rise by 12 % over the two years; this is the slope the report has to find.
    price = list_price * (1 + 0.12 * day / DAYS) * rng.gauss(1.0, 0.03)
    minutes = rng.lognormvariate(2.2, 0.6)
    if rng.random() < 0.001:
        price *= 40  # a slipped decimal point
    row = {
        "id": number,
        "day": (FIRST_DAY + datetime.timedelta(days=day)).isoformat(),
        "region": region,
        "product": product,
        "channel": channel,
        "quantity": quantity,
        "price": f"{price:.2f}",
        "discount": discount,
        "minutes": f"{minutes:.1f}",
        "note": rng.choice(NOTES),
    }
    if rng.random() < 0.005:
        row[rng.choice(["price", "quantity", "region"])] = ""
    if rng.random() < 0.0005:
        row["quantity"] = "many"
    return row


def main():
    if len(sys.argv) not in (2, 3) or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) == 3 else 1)
    fields = "id day region product channel quantity price discount minutes note".split()
    writer = csv.DictWriter(sys.stdout, fields, lineterminator="\n")
    writer.writeheader()
    for number in range(1, int(sys.argv[1]) + 1):
        writer.writerow(one_row(rng, number))


main()
