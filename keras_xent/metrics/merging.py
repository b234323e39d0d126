"""Which metrics can be merged."""


def checked_alike(metric, others):
    """The other metrics as a list.

    Raises:
        ValueError: If one is of another class or configuration.
    """
    others = list(others)
    for other in others:
        mine, theirs = (
            {**each.get_config(), "name": None, "dtype": None}
            for each in (metric, other)
        )
        if type(metric) is not type(other) or mine != theirs:
            raise ValueError(
                "Metrics can be merged if they are configured alike. "
                f"Expected {type(metric).__name__} with {mine}, got "
                f"{type(other).__name__} with {theirs}."
            )
    return others
