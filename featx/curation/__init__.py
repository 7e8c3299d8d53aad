"""Questions to a table before and after labelling, each answered by a `Listing` of its rows.

`search` finds what is like an image, `duplicates` what is there twice, `doubts` which labels look wrong, and `suggest`
which images to label next.
"""

from __future__ import annotations

from featx.curation.applying import apply_labels
from featx.curation.doubts import doubts, less_probable, out_of_fold
from featx.curation.duplicates import duplicates
from featx.curation.listing import Listing
from featx.curation.search import search
from featx.curation.suggest import suggest

__all__ = ["Listing", "apply_labels", "doubts", "duplicates", "less_probable", "out_of_fold", "search", "suggest"]
