"""The analyses of Kechris et al. 2024: what rectification does to a spectrum, and the DC that it makes.

``tones`` and ``amplitude`` are signals and their spectra; ``series`` predicts what ReLU makes of them;
``layer_spectra_1d`` and ``layer_spectra_2d`` look into networks; the rest are the paper's examples.
"""
