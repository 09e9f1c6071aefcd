"""A short English text to measure quality on when the user gives none. Data only."""

__all__ = ["SAMPLE_TEXT"]

SAMPLE_TEXT = """\
Bread needs only flour, water, salt and time. When flour is mixed with water, two of its proteins join into long \
elastic strands called gluten, and these strands hold the gas that yeast gives off while it feeds on sugar. A baker \
kneads the dough to bring the strands into order, then leaves it to rest in a warm place until it has doubled in size. \
A cold night in the refrigerator slows the yeast down, but not the enzymes that give bread most of its flavour, which \
is why a loaf that took two days often tastes better than one that took two hours.

In the oven the water near the surface turns to steam. The loaf rises quickly for the first ten minutes, until the \
crust has set and the inside has reached about sixty degrees. Then the starch begins to swell and the crumb becomes \
firm. Above one hundred and forty degrees the crust turns brown, because sugars and amino acids react with each other \
and form hundreds of new substances. If there is not enough steam, the crust sets too early and the loaf tears at the \
side.

The moon goes around the earth once in about twenty-seven days, and it always shows us the same face. This is not a \
coincidence. Long ago the moon turned faster, but the pull of the earth raised a bulge in its rock, and the friction \
of that bulge slowed it down until one side stayed turned towards us. The same force works on the earth as well: our \
days become longer by about two thousandths of a second in a hundred years.

"Have you ever seen the far side?" asked the girl. Her grandfather put down his cup and smiled. "Nobody on earth had, \
until a small probe flew behind it and sent back a few grey pictures. People expected dark plains, like the ones on \
the near side. Instead they found mountains and craters, one beside the other."

To sort a list of numbers, a program can split it into two halves, sort each half in the same way, and merge the \
results: it looks at the first number of both halves, takes the smaller one, and goes on until both are empty. For a \
thousand numbers this takes about ten thousand comparisons, while comparing every number with every other one would \
take half a million.
"""
