"""Which scores mean alike: the large ones or the small ones."""

import numpy as np

from keras_xent.ops.distance import name_of


def is_similarity(similarity, distance=None):
    """Whether large scores mean alike. It is said, or known; never guessed.

    Args:
        similarity: True, False, or None for not said.
        distance: None if scores come in, or what makes them: a name, a function
            of ours that has one, or another callable.

    Returns:
        A bool.

    Raises:
        ValueError: If it is not said and not known, or is wrong.
    """
    known = name_of(distance)
    if similarity is None and isinstance(known, str):
        return False
    if not isinstance(similarity, bool | np.bool_):
        raise ValueError(
            "Expected `similarity` to say which scores mean alike. "
            "similarity=True: large scores mean alike, as cosines and logits; "
            "similarity=False: small ones do, as distances. Received: "
            f"similarity={similarity!r}"
        )
    if similarity and isinstance(known, str):
        raise ValueError(
            f"distance={known!r} is small for rows that are alike, so "
            "similarity=True would call the most different rows matches. "
            "Leave `similarity` out, or give a callable that returns "
            f"similarities. Received: similarity={similarity!r}"
        )
    return bool(similarity)
