"""The table and the JSON."""


P99_SAMPLES = 50  # below it, p99 would be the worst sample under another name


def number(value):
    if value < 0:
        return f"-{number(-value)}"
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def proportion(figure, base):
    """None where one of them is not a real quantity, as memory that something else gave back."""
    return figure / base if figure > 0 and base > 0 else None


class Aim:
    """What a figure should be. @limit is in the row's unit, or a ratio to the row's peer."""

    def __init__(self, limit, of_peer=False, at_least=False, text=""):
        self.limit, self.of_peer, self.at_least, self.text = limit, of_peer, at_least, text

    def describe(self, unit):
        sign = ">=" if self.at_least else "<="
        return f"{sign} {number(self.limit)}x peer" if self.of_peer else f"{sign} {number(self.limit)} {unit}"

    def verdict(self, figure):
        met = figure >= self.limit if self.at_least else figure <= self.limit
        if met:
            return "met"
        away = self.limit / figure if self.at_least else figure / self.limit
        return f"missed by {number(away)}x" if away >= 1.995 else f"missed by {(away - 1) * 100:.0f} %"


class Row:
    """One contestant's line. @peer: the Contestant its ratio refers to; @note stands below the line."""

    def __init__(self, contestant, peer=None, aim=None, note=""):
        self.c, self.peer, self.aim, self.note = contestant, peer, aim, note

    def ratio(self):
        if self.peer is None or not len(self.c.series) or not len(self.peer.series):
            return None
        return proportion(self.c.series.p(50), self.peer.series.p(50))

    def best_ratio(self):
        """Of the best samples: what is left when the machine is busy with other things."""
        if self.ratio() is None:
            return None
        pick = max if self.c.series.unit == "MB/s" else min
        return proportion(pick(self.c.series.samples), pick(self.peer.series.samples))

    def is_nothing(self):
        """A stage that took no time that could be read; it stays in the JSON."""
        return self.aim is None and len(self.c.series) > 0 and number(max(self.c.series.samples)) == "0.00"

    def judged(self):
        """(aim, verdict) as texts; empty without an aim."""
        if self.aim is None:
            return "", ""
        aim = self.aim.describe(self.c.series.unit)
        figure = self.ratio() if self.aim.of_peer else (self.c.series.p(50) if len(self.c.series) else None)
        return aim, self.aim.verdict(figure) if figure is not None else ""

    def as_json(self):
        aim, verdict = self.judged()
        out = self.c.as_json()
        if self.peer is not None:
            out["peer_name"], out["ratio"] = self.peer.name, self.ratio()
            out["best_ratio"] = self.best_ratio()
        if aim:
            out["aim"], out["verdict"] = aim, verdict
        if self.note:
            out["note"] = self.note
        return out


class Table:
    """The rows of one suite."""

    def __init__(self, title, rows, notes=()):
        self.title, self.rows, self.notes = title, rows, list(notes)

    def as_json(self):
        return {"title": self.title, "rows": [r.as_json() for r in self.rows], "notes": self.notes}

    def print(self, width=44):
        print(f"\n{self.title}")
        head = f"  {'':{width}} {'best':>8} {'p50':>8} {'p90':>8} {'p99':>8} {'unit':<7} {'n':>4}  {'ratio':<8} {'aim':<15} verdict"
        print(head.rstrip())
        for row in self.rows:
            if not row.is_nothing():
                self._print_row(row, width)
        for note in self.notes:
            print(f"    {note}")

    def _print_row(self, row, width):
        c, aim = row.c, row.judged()
        name = f"{c.name}{' (peer)' if c.peer else ''}"
        if not len(c.series):
            print(f"  {name:{width}} skip: {c.skipped or 'no sample'}")
            return
        else:
            s, ratio = c.series.summary(), row.ratio()
            best = s["max"] if s["unit"] == "MB/s" else s["min"]
            p99 = number(s["p99"]) if s["n"] >= P99_SAMPLES else "-"
            line = (f"  {name:{width}} {number(best):>8} {number(s['p50']):>8} {number(s['p90']):>8} {p99:>8} "
                    f"{s['unit']:<7} {s['n']:>4}  {f'{ratio:.2f}x' if ratio else '':<8} {aim[0]:<15} {aim[1]}")
            print(line.rstrip())
        if c.failures:
            print(f"    {c.failures} of its samples failed{': ' + c.skipped if c.skipped else ''}")
        for text in (c.command, row.note):
            if text:
                print(f"      {text}")
