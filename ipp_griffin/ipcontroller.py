"""`python -m ipp_griffin.ipcontroller`, as process lists and running clusters name it; see `ipp_griffin.controller.ipcontroller`."""

from .controller.ipcontroller import main

if __name__ == "__main__":
    main()
