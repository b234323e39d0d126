"""Which metrics can be merged."""


def checked_alike(metric, others):
    """The other metrics as a list.

    Raises:
        ValueError: If one is of another class or configuration.
    """
    others = list(others)
    for other in others:
        if type(other) is not type(metric):
            raise ValueError(
                "Metrics can be merged if they are configured alike. Expected "
                f"{type(metric).__name__}. Received {type(other).__name__}."
            )
        mine, theirs = _options(metric), _options(other)
        unlike = [key for key in mine if mine[key] != theirs.get(key)]
        if unlike:
            expected, received = (
                ", ".join(f"{key}={options[key]!r}" for key in unlike)
                for options in (mine, theirs)
            )
            raise ValueError(
                "Metrics can be merged if they are configured alike. Expected "
                f"{type(metric).__name__} with {expected}. Received one with "
                f"{received}."
            )
    return others


def _options(metric):
    """The configuration, without what does not touch the state."""
    config = metric.get_config()
    return {k: v for k, v in config.items() if k not in ("name", "dtype")}
