"""The exit codes that processes of the service use and that others act on."""

EXIT_OK = 0
EXIT_FAILED = 1  # something that was asked for failed; the output says what
EXIT_USAGE = 2  # the call itself was wrong
EXIT_HUNG = 70  # the service hung; the supervisor starts it again
EXIT_CARD_LOST = 71  # its graphics card computes no more in this process; the supervisor starts it again
EXIT_BAD_SETTINGS = 78  # EX_CONFIG: the settings or the device they name; a restart would not help
EXIT_INTERRUPTED = 130  # Ctrl-C
