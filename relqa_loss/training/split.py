"""Operators held out of training, to measure how the network does on what it has never seen."""

HELD_OUT: tuple[str, ...] = (
    "lens_blur",
    "zoom_blur",
    "high_boost",
    "avif",
    "speckle",
    "film_grain",
    "non_local_means",
    "webp",
    "pixelate",
    "gibbs_truncation",
    "hsv_saturation_up",
    "hsv_saturation_down",
    "colour_cast_warm",
    "colour_cast_cool",
    "gamma_brighten",
    "underexposure",
    "s_curve",
    "haze",
    "row_jitter",
    "chromatic_aberration",
    "contour_banding",
    "dead_lines",
    "block_dropouts",
)
"""Chosen before any network was trained: about a quarter of the bank, from every channel that has
more than one operator in each direction. They never take part in a run with ``hold_out``."""
