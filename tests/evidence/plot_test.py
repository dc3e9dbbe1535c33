"""What plot.py draws and what it refuses, on the example of its own documentation. Run by tests/evidence/checks/R16.sh."""

import unittest
import xml.etree.ElementTree as xml

import plot

EXAMPLE = "\n".join(line[4:] for line in plot.__doc__.splitlines() if line.startswith("    ") and "POINTS" not in line)


class Plots(unittest.TestCase):
    def drawn(self, text):
        return xml.fromstring(plot.svg(plot.Plot(text)))

    def words(self, text):
        return [element.text for element in self.drawn(text).iter() if element.tag.endswith("}text")]

    def test_the_example_has_its_names_its_level_and_its_ticks(self):
        words = self.words(EXAMPLE)
        for word in ["Speed of one thread", "block size, bytes", "GB/s", "raw", "one by one", "4 Ki", "64 Ki", "0", "15"]:
            self.assertIn(word, words)

    def test_points_lie_where_their_values_are(self):
        line = next(e for e in self.drawn(EXAMPLE).iter() if e.tag.endswith("}polyline"))
        (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.get("points").split())
        self.assertEqual((x1, x2), (plot.LEFT, plot.LEFT + plot.WIDTH))
        # The axis reaches from 0 to 20.
        for y, value in ((y1, 7.1), (y2, 18.2)):
            self.assertAlmostEqual(y, plot.TOP + plot.HEIGHT * (1 - value / 20), places=1)

    def test_markup_in_a_name_is_text(self):
        self.assertIn("a < b & c", self.words(EXAMPLE.replace("one by one", "a < b & c")))

    def test_every_scale_and_a_single_point_are_drawn(self):
        for x in ("log", "linear"):
            for y in ("log", "linear"):
                for points in ("3 4", "1000 0.02\n3000000 900", "7 7\n8 7"):
                    self.drawn(f"title: t\nx: a {x}\ny: b {y}\nseries: s\n{points}")

    def test_what_cannot_be_drawn_is_refused(self):
        for good, bad in [("linear", "square"), ("18.2", "x"), ("4096 7.1", "0 7.1"), ("series: one by one\n", ""), ("7.1", "nan")]:
            with self.assertRaises(ValueError, msg=bad):
                self.drawn(EXAMPLE.replace(good, bad))


if __name__ == "__main__":
    unittest.main()
