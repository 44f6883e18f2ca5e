"""The arithmetic of the comparison, without any peer: python3 -m unittest discover -s bench/peers"""

import math
import unittest

from clients import percentile
from report import Samples, table
from shapes import SHAPES, linear_sizes


class Peers(unittest.TestCase):
    def test_percentiles_are_values_that_were_measured(self):
        hundred = [float(value) for value in range(100, 0, -1)]
        self.assertEqual([percentile(hundred, share) for share in (0.5, 0.95, 0.99)], [50.0, 95.0, 99.0])
        self.assertEqual(percentile([3.0, 1.0, 2.0], 0.5), 2.0)
        self.assertTrue(math.isnan(percentile([], 0.5)))

    def test_disturbed_runs_are_left_out_where_there_are_quiet_ones(self):
        samples = Samples()
        for rate, others in ((10.0, 0.0), (12.0, 0.1), (2.0, 1.5)):
            samples.add("decode, batch 1", "peer", {"decode": rate}, others)
        samples.add("decode, batch 1", "ours", {"decode": 22.0}, 0.9)
        peer, ours = samples.medians()
        self.assertEqual((peer["decode"], peer["runs"], peer["disturbed"]), (11.0, 2, False))
        self.assertEqual((ours["decode"], ours["disturbed"]), (22.0, True))
        printed = table([peer, ours], ours="ours")
        self.assertIn("2.00x?", printed)
        self.assertRegex(table([peer, ours | {"disturbed": False}], ours="ours"), r"2\.00x\n")
        self.assertIn("(disturbed)", printed)

    def test_the_shape_has_the_published_number_of_weights(self):
        config = SHAPES["qwen2.5-0.5b"]
        layer = sum(inputs * outputs for inputs, outputs in linear_sizes(config).values())
        biases = config["hidden_size"] + 2 * 128
        norms = 2 * config["hidden_size"]
        embedding = config["vocab_size"] * config["hidden_size"]
        whole = config["num_hidden_layers"] * (layer + biases + norms) + embedding + config["hidden_size"]
        self.assertEqual(whole, 494_032_768)


if __name__ == "__main__":
    unittest.main()
