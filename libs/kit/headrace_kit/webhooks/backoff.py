"""How long to wait after an attempt that failed."""


def delay_s(attempts: int, *, base_s: float, most_s: float, chance: float) -> float:
    """Seconds until the next attempt: exponential, and spread so that those that failed together come back apart.

    Args:
        attempts: Attempts that failed, from 1.
        base_s: Pause after the first; each later one is four times as long.
        most_s: Longest pause.
        chance: A random number in [0, 1): the pause is between its half and the whole.
    """
    whole = min(most_s, base_s * 4.0 ** min(attempts - 1, 32))
    return whole * (0.5 + chance / 2)
