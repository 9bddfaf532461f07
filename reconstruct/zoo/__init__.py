"""Models by name: specifications and weights in, specifications and weights out. Nothing here inverts."""
