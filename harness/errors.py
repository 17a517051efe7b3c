"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """Bad input. The message is one sentence that names the key, file or row and says how to fix it.

    Entry points print it without a traceback and exit with code 2.
    """
