"""Samples and what is said about them."""


def percentile(ordered, p):
    """Linear between the two nearest ranks; @ordered is sorted and not empty."""
    at = (len(ordered) - 1) * p / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


class Series:
    """Samples of one quantity in one unit."""

    def __init__(self, unit):
        self.unit = unit
        self.samples = []

    def add(self, value):
        self.samples.append(float(value))

    def __len__(self):
        return len(self.samples)

    def p(self, percent):
        return percentile(sorted(self.samples), percent)

    def summary(self):
        return {"n": len(self), "unit": self.unit, "p50": self.p(50), "p90": self.p(90),
                "p99": self.p(99), "min": min(self.samples), "max": max(self.samples)}


def parts_of(seconds_per_part, limit):
    """How many samples of a known cost fit into @limit seconds; at least 3."""
    return max(3, int(limit / max(seconds_per_part, 1e-6)))
