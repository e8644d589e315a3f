"""Start of a bridge: run its application, and restart the board whatever happens to it.

A bridge holds nothing that could be lost, and is flashed over the cable that it hangs on. So it has no slots
and no crash file: the fewer parts, the fewer that can fail.
"""

import gc
import sys
import time

import machine

_WATCHDOG_MS = 30000
_BEFORE_RESET_S = 1

watchdog = machine.WDT(timeout=_WATCHDOG_MS)
try:
    import bridge.app

    bridge.app.main(watchdog)
except KeyboardInterrupt:
    # A technician at the console wants the prompt. The watchdog goes on.
    raise
except BaseException as error:  # the last line of defence: nothing stands behind it
    gc.collect()
    sys.print_exception(error)
watchdog.feed()
time.sleep(_BEFORE_RESET_S)
machine.reset()
