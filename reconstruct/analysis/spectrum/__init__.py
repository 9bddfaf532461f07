"""The analyses of Kechris et al. 2024: what rectification does to a spectrum, and the DC that it makes."""
