"""The error that every fault in the data is reported with."""


class DatasetError(ValueError):
    """A case, a file or a description of a data set cannot be used.

    Its message names the case and the file, says what is wrong and what to do.
    """
