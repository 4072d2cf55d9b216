"""The session-sidecar program, installed by pip."""

import os
import sysconfig

__all__ = ["program"]


def program() -> str:
    """The path of the program `session-sidecar` that was installed with this package.

    Raises FileNotFoundError if somebody has taken it away.
    """
    schemes = [sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")]
    places = [os.path.join(sysconfig.get_path("scripts", scheme), "session-sidecar") for scheme in schemes]
    for place in places:
        if os.path.isfile(place):
            return place
    raise FileNotFoundError(f"session-sidecar is not where pip puts programs ({', '.join(places)}): install session-sidecar-server anew")
