"""Depth clips with truth: recorded and made-up people rendered in made-up rooms, and what sensors make of them.

Nobody real was ever filmed; a figure measured on these clips is no figure about residents.
"""

import os

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is imported; a server has no screen
