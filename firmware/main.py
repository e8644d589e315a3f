"""Start of a node: choose a slot, run its application, and come back from whatever happens to it.

This file is never updated over the link, so it does little. The application never returns; where it does, or
where an exception comes out of it, that is said on the console and kept in /crash.txt, and the board resets.
The watchdog runs from the first line on; the application gives it its own time and feeds it.
"""

import gc
import io
import json
import sys
import time

import machine

import slots

# For reading and importing a slot, until the application sets its own time.
_START_MS = 60000
_BEFORE_RESET_S = 1
CRASH_FILE = "/crash.txt"
_CRASH_CHARS = 400

_began_ms = time.ticks_ms()


def _say(code: str, severity: str, name: str, value: str) -> None:
    """Print an event of the node's event stream; the clock is not known here."""
    up_s = time.ticks_diff(time.ticks_ms(), _began_ms) // 1000
    print(json.dumps({"t": None, "up": up_s, "src": "node", "code": code, "sev": severity, name: value}))


def _well(heard: bool) -> None:
    """The application works; `heard` says that the gateway has acknowledged something."""
    if heard:
        slots.here.confirm()
    else:
        slots.here.mark_well()


def _start() -> None:
    choice = slots.here
    choice.choose(machine.reset_cause())
    if choice.note:
        _say("node." + choice.note, "warning", "slot", choice.slot)
    if choice.safe:
        _say("node.safe", "error", "wait_s", str(choice.wait_s))
    for _ in range(choice.wait_s):
        watchdog.feed()
        time.sleep(1)
    watchdog.feed()
    sys.path.insert(0, choice.folder(choice.slot))
    import node.app

    node.app.main(slot=choice.slot, trial=choice.trial, safe=choice.safe, on_well=_well)


def _keep(text: str) -> None:
    """Keep the end of a crash's text for the next start, without wearing the flash with the same text again.
    """
    data = text[-_CRASH_CHARS:].encode()
    try:
        with open(CRASH_FILE, "rb") as file:
            if file.read() == data:
                return
    except OSError:
        pass
    try:
        slots.put(CRASH_FILE, data)
    except OSError:
        pass


watchdog = machine.WDT(timeout=_START_MS)
try:
    _start()
    text = "the application returned"
except KeyboardInterrupt:
    # A technician at the console wants the prompt. The watchdog goes on.
    raise
except BaseException as error:  # the last line of defence: nothing stands behind it
    gc.collect()
    trace = io.StringIO()
    sys.print_exception(error, trace)
    text = trace.getvalue()
    del trace
_say("node.crash", "error", "trace", text[-_CRASH_CHARS:])
_keep(text)
watchdog.feed()
time.sleep(_BEFORE_RESET_S)
machine.reset()
