"""The error type whose message is written for the person who runs the pipeline."""


class PipelineError(ValueError):
    """Something the person running the pipeline can mend; the message says what and how.

    The command line prints the message alone, without a traceback. A plain ``ValueError``
    from a library stays a bug report.
    """
