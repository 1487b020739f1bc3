"""A household ledger: lines of text to entries, and entries to totals."""

from dataclasses import dataclass
from datetime import date


@dataclass
class Entry:
    day: date
    account: str
    cents: int


def parse_amount(text):
    """'12.50', '-3', '1,204.99' to cents."""
    whole, _, part = text.replace(",", "").partition(".")
    return int(whole) * 100 + int(part or 0)


def parse_line(line):
    """'2026-11-03 groceries 12.50'; empty lines and comments are None."""
    line = line.split("#")[0].strip()
    if not line:
        return None
    day, account, amount = line.split()
    return Entry(date.fromisoformat(day), account, parse_amount(amount))


def read(text):
    return [entry for line in text.splitlines() if (entry := parse_line(line))]


def totals(entries):
    """Cents of each account."""
    sums = {}
    for entry in entries:
        sums[entry.account] = entry.cents
    return sums
