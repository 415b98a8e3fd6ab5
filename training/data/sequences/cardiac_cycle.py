"""How far a heart has contracted, over one beat; shared by the synthetic hearts.

The curves follow the textbook's volume curve of the left ventricle: ejection, a short isovolumic
relaxation, early filling, diastasis, the atrium's contraction.
"""

from scipy.interpolate import PchipInterpolator

_EJECTED = PchipInterpolator(
    [0.0, 0.05, 0.35, 0.42, 0.60, 0.82, 0.95, 1.0], [0.0, 0.05, 1.0, 0.98, 0.30, 0.22, 0.0, 0.0]
)
_MITRAL_OPENING = PchipInterpolator(
    [0.0, 0.42, 0.50, 0.65, 0.80, 0.90, 0.98, 1.0], [0.0, 0.0, 1.0, 0.35, 0.35, 0.8, 0.0, 0.0]
)


def ejected(phase: float) -> float:
    """Share of the stroke volume that has left the ventricle.

    Args:
        phase: In beats from end diastole; only its fraction counts.

    Returns:
        0 at end diastole to 1 at end systole (phase 0.35).
    """
    return float(_EJECTED(phase % 1.0))


def mitral_opening(phase: float) -> float:
    """How far the mitral valve is open, 0 (all of systole) to 1 (early filling)."""
    return float(_MITRAL_OPENING(phase % 1.0))
