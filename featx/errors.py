"""Every error that featx raises on purpose.

::

    FeatxError
    ├── UnknownNameError       (ValueError)         a name that is not on a list we can print
    │   ├── UnknownBackboneError
    │   ├── UnknownLayerError
    │   └── UnknownHeadError
    ├── ForkError              (RuntimeError)       a process was forked from one whose threads it would need
    ├── OptionError            (ValueError)         a value that an option cannot take
    │   └── ImageSizeError                          a network cannot take images of that size
    ├── DataError              (ValueError)         the images, labels or tables given
    │   ├── MissingDataError   (FileNotFoundError)  nothing at that path
    │   ├── RowIndexError      (IndexError)         a row that a table does not have
    │   ├── ImageError                              one image that cannot be read, with the reason
    │   └── TooManyErrors                           more bad images than --max-errors allows
    ├── WeightsError           (ValueError)         weights that do not fit the network
    │   └── WeightsUnavailable (OSError)            weights that cannot be downloaded or found
    ├── CacheError             (OSError)            the cache folder as a whole
    │   ├── CorruptFileError   (ValueError)         a file that fails its own checksums
    │   └── NoSpaceError                            the disk cannot take what was asked for
    ├── ClusterError           (RuntimeError)       a cluster that cannot do the work
    ├── ProbeError             (RuntimeError)       this machine computes other features than the table holds
    ├── OutputError            (OSError)            a result that cannot be written
    ├── ModelFileError         (ValueError)         a model file that cannot be trusted or understood
    └── MissingExtraError      (ImportError)        an optional package, with the command that installs it

Each message says what was wrong, what was got, and what to type next, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CacheError",
    "ClusterError",
    "CorruptFileError",
    "DataError",
    "FeatxError",
    "ForkError",
    "ImageError",
    "ImageSizeError",
    "MissingDataError",
    "MissingExtraError",
    "ModelFileError",
    "NoSpaceError",
    "OptionError",
    "OutputError",
    "ProbeError",
    "RowIndexError",
    "TooManyErrors",
    "UnknownBackboneError",
    "UnknownHeadError",
    "UnknownLayerError",
    "UnknownNameError",
    "WeightsError",
    "WeightsUnavailable",
]


class FeatxError(Exception):
    """Root of the tree: ``except featx.FeatxError`` catches all that featx raises on purpose."""


class UnknownNameError(FeatxError, ValueError):
    """A name that is not on a list we can print."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], listing: str) -> UnknownNameError:
        """Build the error for `name`, with the nearest of `known` names as a suggestion.

        Parameters
        ----------
        kind : str
            What the name should have been, as the user calls it ("backbone").
        name : str
            What was typed.
        known : iterable of str
            The names that exist.
        listing : str
            The command that prints all of them.

        Examples
        --------
        >>> print(UnknownBackboneError.among("backbone", "resnet5", ["resnet50", "vgg16"], "featx backbones"))
        Unknown backbone 'resnet5'. Did you mean 'resnet50'? All names: featx backbones
        """
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return cls(f"Unknown {kind} {name!r}.{hint} All names: {listing}")


class UnknownBackboneError(UnknownNameError):
    """No backbone of that name."""


class UnknownLayerError(UnknownNameError):
    """The backbone has no layer of that name."""


class UnknownHeadError(UnknownNameError):
    """No head of that name."""


class ForkError(FeatxError, RuntimeError):
    """A process was forked from one whose threads it would need."""


class OptionError(FeatxError, ValueError):
    """A value that an option cannot take."""


class ImageSizeError(OptionError):
    """A network cannot take images of that size."""


class DataError(FeatxError, ValueError):
    """The images, labels or tables given do not allow what was asked."""


class MissingDataError(DataError, FileNotFoundError):
    """Nothing at that path."""


class ImageError(DataError):
    """One image that cannot be read. The message is the reason, as listed in a table's ``errors``.

    Parameters
    ----------
    reason : str
        What a user reads next to the image's name.
    transient : bool
        True when the image itself may be fine (a killed decoder, a disk that failed): such an error
        is never kept, the image is tried again next time.
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient


class ImageWarning(UserWarning):
    """One image that was read, but perhaps not as it is meant."""


class RowIndexError(DataError, IndexError):
    """A row that a table does not have."""


class TooManyErrors(DataError):
    """More bad images than ``--max-errors`` allows. Everything good is already kept."""


class WeightsError(FeatxError, ValueError):
    """Weights that do not fit the network."""


class WeightsUnavailable(WeightsError, OSError):
    """Weights that can neither be downloaded nor found on this machine."""


class CacheError(FeatxError, OSError):
    """The cache folder cannot be used."""


class CorruptFileError(CacheError, ValueError):
    """A file of the cache that fails its own checksums."""


class NoSpaceError(CacheError):
    """The disk cannot take what was asked for."""


class ClusterError(FeatxError, RuntimeError):
    """A cluster that cannot be reached, or nodes that cannot do the work."""


class ProbeError(FeatxError, RuntimeError):
    """Other features come out on this machine than the table or the model holds."""


class ModelFileError(FeatxError, ValueError):
    """A model file that cannot be trusted or understood."""


class OutputError(FeatxError, OSError):
    """A result that cannot be written to standard output."""


class MissingExtraError(FeatxError, ImportError):
    """An optional package is not installed."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtraError:
        """Build the error for a missing `package` that ``featx[extra]`` brings.

        Examples
        --------
        >>> print(MissingExtraError.of("ray", "ray", "--cluster ray"))
        --cluster ray needs the package 'ray'. Install it: pip install 'featx[ray]'
        """
        return cls(f"{purpose} needs the package {package!r}. Install it: pip install 'featx[{extra}]'")
