"""How random tests run: the same examples in CI each time, so that a failure is the change's; new ones elsewhere.

`make explore` looks for new ones with many more examples. No example is failed for being slow: that is the machine's.
"""

import os

from hypothesis import settings

settings.register_profile("random", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "random"))
