"""The linear maps of layers, their Jacobians and adjoints. Here alone it is asked what a network consists of. No
operator knows a solver.
"""
