"""The analyses of Shang et al. 2016: pairs, correlation, invariance, complexity, and rectification step by step."""
