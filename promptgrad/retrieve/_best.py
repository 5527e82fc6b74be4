"""`best`: the places of the highest scores, with ties in the order of their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the `k` highest scores, the highest first; of equal scores the earlier place comes first.

    Shape: `scores` has one number for each place; the result has `min(k, len(scores))` places.
    """
    import numpy as np

    number = len(scores)
    if k >= number:
        places: Any = np.arange(number)
    else:
        bound = np.partition(scores, number - k)[number - k]
        above = np.flatnonzero(scores > bound)
        places = np.concatenate([above, np.flatnonzero(scores == bound)[: k - len(above)]])
    ordered: NDArray[np.int64] = places[np.lexsort((places, -scores[places]))]
    return ordered
