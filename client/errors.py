"""Why there is no alpha; each message is one line for the user."""


class AddressError(ValueError):
    """The server's address is not ``host:port``."""


class TlsError(ValueError):
    """A certificate or key cannot be used."""


class ServerError(RuntimeError):
    """The server did not give an alpha."""


class ServerUnavailableError(ServerError):
    """The server could not be reached, or went away and did not come back in time."""


class ServerBusyError(ServerError):
    """The server's queue was full, or the request waited too long in it, until time was up."""


class ServerTimeoutError(ServerError):
    """The server did not answer within the time allowed."""


class ServerRefusedError(ServerError):
    """The server answered with an error, or with something that is not an alpha."""


class TooLargeError(ServerRefusedError):
    """The server does not take an image or tile of this size, or lacked the memory for it."""


class ModelMissingError(ServerError):
    """The server runs, but does not serve the model."""


class CancelledError(ServerError):
    """It was cancelled by who asked for it: see `client.request.Request.cancel`."""


class SharedMemoryError(ServerError):
    """No memory to share with the server: it is elsewhere or closed to it, or there is no room."""
