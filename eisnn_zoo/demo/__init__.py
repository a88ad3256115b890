"""A page in the browser: one picture, one network, and its inhibition turned up and down. Needs the extra ``demo``.

    page = build()
    page.launch(**launch_options())

The command ``eisnn-zoo demo`` and the Space in hub/space show the same page.
"""

from .page import build, launch_options

__all__ = ["build", "launch_options"]
