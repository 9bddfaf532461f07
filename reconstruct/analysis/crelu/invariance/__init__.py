"""Invariance scores: what moves, turns, scales or mirrors an image, and do a layer's units fire on?

Sources: Goodfellow, Le, Saxe, Lee, Ng 2009, "Measuring invariances in deep networks", for the score; Shang, Sohn,
Almeida, Lee 2016, Figure 4, for its use on CReLU beside ReLU.

A unit is a channel of a layer, the same weights at every position. It fires where its feature exceeds its threshold,
which is such that it fires at a given share of positions of untransformed images, its global rate G, 1 %. Of the
positions where it fires, its local rate L is the share at which it still fires once the image is transformed: moved
under the unit, or turned, scaled or mirrored about the centre of what the unit looks at. Its score is L / G: 1 / G,
about 100, is perfect invariance, and 1 that of a unit that fires at random.

**One pass for all positions.** A whole image is transformed about one point c. The content around p goes to p' = M(p),
transformed about itself, so the unit at p' of the transformed image sees what the unit at p saw. p' is rarely the
centre of a position, so only those p are used whose p' lies within an eighth of the layer's step of one, down and
across: of 2 x 1/8 of the step each way, a sixteenth of the positions, and no more translation than that is mixed in.
c is the centre of a position of the network's deepest layer, nearest the image's middle, so that each layer has a p
that stays; for flips also half a step from one, where positions go onto positions exactly. A layer for which another's
point is none of these has its own. Translations are by whole pixels, under units that stay.
"""
