"""The errors that a user can cause and can mend: each message says what is wrong and what to do."""


class EvaCoralbayError(ValueError):
    """Something that a user can mend: a file, an argument or a configuration is wrong.

    The command prints its message alone; any other error is a bug and keeps its traceback.
    """


class DatasetError(EvaCoralbayError):
    """A case, a file or a description of a data set cannot be used.

    Its message names the case and the file, says what is wrong and what to do.
    """
