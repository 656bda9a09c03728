"""Errors that a user can mend: programs end with their message in one line.

Every other exception is a defect and keeps its traceback.
"""


class UserError(ValueError):
  """A config field, an argument, a row or a file is wrong.

  The message names it, says what was found and what to do.
  """


class MissingFileError(UserError, FileNotFoundError):
  """A file or folder is not there, or cannot be fetched."""

  __str__ = Exception.__str__


class MissingPackageError(UserError, ImportError):
  """An optional package is not installed; the message has the command."""


class DivergedError(UserError, FloatingPointError):
  """A loss, a parameter or a prediction is not finite."""
