import random
import unittest

from slope import slope


class SlopeTest(unittest.TestCase):
    def test_a_leak_below_the_noise_of_its_samples_is_found(self) -> None:
        chance = random.Random(1)
        # 5 MB an hour under peaks of 20 MB, for an hour.
        samples = [(float(at), 40 + 5 * at / 3600 + chance.choice([0, 0, 0, 20 * chance.random()])) for at in range(0, 3600, 3)]
        found = slope(samples)
        self.assertAlmostEqual(found.per_hour, 5, delta=found.give)
        self.assertGreater(found.per_hour - found.give, 1)

    def test_noise_is_no_leak(self) -> None:
        chance = random.Random(2)
        found = slope([(float(at), 40 + chance.gauss(0, 3)) for at in range(0, 450)])
        self.assertLess(found.per_hour - found.give, 1)

    def test_too_few_samples_are_no_line(self) -> None:
        with self.assertRaises(ValueError):
            slope([(float(at), 1.0) for at in range(5)])


if __name__ == "__main__":
    unittest.main()
