"""Tools for tests, of this project and of others: the laws, what they are tried on, and what they ask.

`laws` are checks without chance in them; `stacks` describes small stacks as values and builds them; `strategies` draws
both stacks and probes, with page tables of every format (`LAW_FORMATS`), and `cases` puts each law together with what
it is tried on: these two need hypothesis (the extra ``test``). Nothing of the product imports this room.
"""

from swiommu.testing.formats import DRAWN, LAW_FORMATS, TINY
from swiommu.testing.laws import LAWS, Law, hold
from swiommu.testing.probes import Glance, Probe, glance, merged, tell, tell_glance
from swiommu.testing.stacks import Patch, Recipe, Stack, Stage, chained
from swiommu.testing.twin import Place, Twin

__all__ = [
    "DRAWN",
    "LAWS",
    "LAW_FORMATS",
    "TINY",
    "Glance",
    "Law",
    "Patch",
    "Place",
    "Probe",
    "Recipe",
    "Stack",
    "Stage",
    "Twin",
    "chained",
    "glance",
    "hold",
    "merged",
    "tell",
    "tell_glance",
]
