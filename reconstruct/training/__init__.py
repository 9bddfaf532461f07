"""Training and classifying models of the zoo. It knows no inversion."""
