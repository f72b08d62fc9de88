"""``mien doctor``: what works here, what is missing, and the mend. A room for each kind of thing that is looked at.

``finding`` says what a finding is; ``configuration`` looks at what the user chose, ``machine`` at what there is,
``services`` at what else has to run, ``engine`` at what classifies; ``report`` is the block for a bug report.
Nothing here changes anything, and no finding depends on another: what cannot be looked at says so.
"""

from cli.doctor.command import commands

__all__ = ["commands"]
