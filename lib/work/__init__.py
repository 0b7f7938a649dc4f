"""Analyses as units of work: computed here or by other processes, cached, resumed.

May import: study and the rooms below it.
Public names: those below, imported on first use. An analysis is a subclass of `Work`; `tables`
yields what it computes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "cache": ["LEFT_OUT", "read_cached", "write_cached"],
    "cluster": ["ClusterError"],
    "doing": ["tables"],
    "units": ["Unit", "Work"],
})  # fmt: skip
