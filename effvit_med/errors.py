"""Every error that effvit-med raises on purpose, with the exit code of each.

The tree::

    EffvitError            1   something failed; also the parent of all below
    ├── InputError         1   the input cannot be used: fix or leave out the file that is named
    │   ├── NoImagesError  1   there is no image in the input at all
    │   └── RefusedError   3   the case is readable but not safe to segment; carries a code and a remedy
    ├── GeometryError      1   positions, axes or sizes contradict each other
    ├── WeightsError       1   a weights file does not belong to the network, or is not safe to load
    ├── SettingsError      2   an option or a config value is wrong
    ├── OutputError        1   a result could not be written: disk full, no permission
    ├── TemporaryError    75   a batch cannot go on now: disk full, device lost; run it again
    └── CancelledError   130   the user stopped the run

A message says what is wrong, the value, where it stands and what to do about it.
"""


class EffvitError(Exception):
    """The root of the tree: catch this to catch everything that effvit-med raises on purpose."""

    exit_code = 1


class InputError(EffvitError):
    """The input cannot be used; the message names the file."""


class NoImagesError(InputError):
    """The input holds no image at all."""


class RefusedError(InputError):
    """A case that can be read but must not be segmented as it is.

    Attributes:
        code: a short machine-readable word such as ``MISSING_SLICES``.
        remedy: what the user can do about it, one sentence; empty where nothing can be done.
    """

    exit_code = 3

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{code}: {message}" + (f" {remedy}" if remedy else ""))
        self.code = code
        self.remedy = remedy


class GeometryError(EffvitError):
    """Positions, axes or sizes contradict each other."""


class WeightsError(EffvitError):
    """A weights file does not belong to the network, or cannot be loaded safely."""


class SettingsError(EffvitError):
    """An option or a configuration value is wrong."""

    exit_code = 2


class OutputError(EffvitError):
    """A result could not be written; nothing half written is left behind."""


class TemporaryError(EffvitError):
    """A batch cannot go on now, such as for a full disk; what is finished stays, and the same command goes on later."""

    exit_code = 75


class CancelledError(EffvitError):
    """The user stopped the run; nothing half written is left behind."""

    exit_code = 130
