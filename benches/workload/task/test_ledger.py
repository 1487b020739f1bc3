import unittest

import ledger


class Amounts(unittest.TestCase):
    def test_cents(self):
        self.assertEqual(ledger.parse_amount("12.50"), 1250)
        self.assertEqual(ledger.parse_amount("1,204.99"), 120499)

    def test_tenths(self):
        self.assertEqual(ledger.parse_amount("3.5"), 350)

    def test_less_than_nothing(self):
        self.assertEqual(ledger.parse_amount("-2.25"), -225)
        self.assertEqual(ledger.parse_amount("-0.75"), -75)


class Totals(unittest.TestCase):
    def test_entries_add_up(self):
        text = "2026-11-03 groceries 12.50\n2026-11-04 groceries 7.50 # market\n2026-11-05 rent 800\n"
        self.assertEqual(ledger.totals(ledger.read(text)), {"groceries": 2000, "rent": 80000})


if __name__ == "__main__":
    unittest.main()
