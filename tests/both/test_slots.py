"""The two application slots: trials, falling back, safe mode, and power cuts at every flash operation."""

import gc
import hashlib
import json
import os
from binascii import hexlify

from slots import TRIES, UNWELL_MAX, Slots

try:
    import vfs
    from fakes.nor import Nor, mount, unmount
except ImportError:
    vfs = None

PWRON, HARD, WDT, DEEPSLEEP = 1, 2, 3, 4
_MOUNT = "/slots-test"


class Flash:
    """A fresh place for slots: LittleFS on NOR flash on MicroPython, a temporary folder on CPython."""

    def __enter__(self):
        if vfs is not None:
            self._nor = Nor()
            mount(self._nor, _MOUNT, fresh=True)
            return _MOUNT
        import tempfile

        self._folder = tempfile.TemporaryDirectory()
        return self._folder.name

    def __exit__(self, kind, error, trace):
        if vfs is not None:
            unmount(self._nor, _MOUNT)
        else:
            self._folder.cleanup()


def files_of(version):
    content = version.encode()
    return {"node/app.mpy": content * 300, "node/line.mpy": content * 500, "sensors/base.mpy": content * 90}


def manifest_of(files, version):
    entries = {}
    for name, data in files.items():
        entries[name] = [len(data), hexlify(hashlib.sha256(data).digest()).decode()]
    return json.dumps({"v": 1, "version": version, "files": entries}).encode()


def write_slot(folder, files):
    for name, data in files.items():
        try:
            os.mkdir(folder + "/" + name.split("/")[0])
        except OSError:
            pass
        with open(folder + "/" + name, "wb") as file:
            file.write(data)


def install(slots, version):
    files = files_of(version)
    write_slot(slots.begin(), files)
    return slots.commit(manifest_of(files, version))


def make_node(root, version="1.0"):
    """A node as it leaves the workshop: slot a, no state file."""
    slots = Slots(root)
    os.mkdir(slots.folder("a"))
    files = files_of(version)
    write_slot(slots.folder("a"), files)
    with open(slots.folder("a") + "/manifest.json", "wb") as file:
        file.write(manifest_of(files, version))


def boot(root, cause=HARD):
    slots = Slots(root)
    slots.choose(cause)
    return slots


def boot_confirmed(root, version):
    """Install a version on top, start it and let it confirm itself."""
    assert install(boot(root, PWRON), version)
    slots = boot(root)
    assert slots.trial
    slots.confirm()


def damage(root, slot):
    with open(Slots(root).folder(slot) + "/node/app.mpy", "wb") as file:
        file.write(b"?")


def seen(slots):
    return slots.slot, slots.trial, slots.safe, slots.version(slots.slot)


def test_new_node_runs_slot_a():
    with Flash() as root:
        make_node(root)
        assert seen(boot(root, PWRON)) == ("a", False, False, "1.0")
        assert Slots(root).verify("a") == "1.0"
        assert Slots(root).verify("b") is None


def test_trial_that_is_not_confirmed_runs_three_times_and_is_given_up():
    with Flash() as root:
        make_node(root)
        assert install(boot(root, PWRON), "2.0")
        for cause in (HARD, WDT, PWRON)[:TRIES]:
            assert seen(boot(root, cause)) == ("b", True, False, "2.0")
        slots = boot(root, WDT)
        assert seen(slots) == ("a", False, False, "1.0")
        assert slots.note == "rollback"
        assert slots.state()["bad"] == "2.0"
        assert slots.state()["unwell"] == 0
        assert boot(root, PWRON).note == ""


def test_confirmed_trial_becomes_active_and_the_next_one_goes_to_the_other_slot():
    with Flash() as root:
        make_node(root)
        boot_confirmed(root, "2.0")
        assert seen(boot(root, PWRON)) == ("b", False, False, "2.0")
        boot_confirmed(root, "3.0")
        assert seen(boot(root, PWRON)) == ("a", False, False, "3.0")


def test_old_application_cannot_confirm_the_new_one():
    with Flash() as root:
        make_node(root)
        running = boot(root, PWRON)
        assert install(running, "2.0")
        running.confirm()
        assert running.state()["trial"] == "b"
        assert running.state()["act"] == "a"


def test_trial_with_a_damaged_file_never_runs():
    with Flash() as root:
        make_node(root)
        assert install(boot(root, PWRON), "2.0")
        damage(root, "b")
        slots = boot(root)
        assert seen(slots) == ("a", False, False, "1.0")
        assert slots.note == "rollback"


def test_manifest_that_does_not_match_is_refused():
    with Flash() as root:
        make_node(root)
        slots = boot(root, PWRON)
        write_slot(slots.begin(), files_of("2.0"))
        assert not slots.commit(manifest_of(files_of("2.1"), "2.1"))
        assert not slots.commit(b"[1, 2]")
        assert not slots.commit(b"\x00 no JSON")
        assert slots.version("b") is None
        assert seen(boot(root)) == ("a", False, False, "1.0")


def test_slot_that_runs_on_trial_is_not_overwritten():
    with Flash() as root:
        make_node(root)
        assert install(boot(root, PWRON), "2.0")
        slots = boot(root)
        for attempt in (slots.begin, lambda: slots.commit(b"{}")):
            try:
                attempt()
                refused = False
            except OSError as error:
                refused = error.args[0] == 16
            assert refused
        assert slots.verify("b") == "2.0"
        slots.confirm()
        assert install(slots, "3.0")


def test_beginning_a_new_update_withdraws_the_one_on_trial():
    with Flash() as root:
        make_node(root)
        slots = boot(root, PWRON)
        assert install(slots, "2.0")
        slots.begin()
        after = boot(root)
        assert seen(after) == ("a", False, False, "1.0")
        assert after.note == ""


def test_power_cuts_and_deep_sleep_count_as_no_crash():
    with Flash() as root:
        make_node(root)
        boot_confirmed(root, "2.0")
        for _ in range(2 * UNWELL_MAX):
            assert seen(boot(root, PWRON)) == ("b", False, False, "2.0")
            assert seen(boot(root, DEEPSLEEP)) == ("b", False, False, "2.0")
        assert Slots(root).state()["unwell"] == 0


def test_crashes_in_a_row_bring_the_other_slot_back_and_then_safe_mode():
    with Flash() as root:
        make_node(root)
        boot_confirmed(root, "2.0")
        for _ in range(UNWELL_MAX - 1):
            assert seen(boot(root, WDT)) == ("b", False, False, "2.0")
        slots = boot(root, WDT)
        assert seen(slots) == ("a", False, False, "1.0")
        assert slots.note == "fallback"
        for _ in range(UNWELL_MAX - 1):
            assert seen(boot(root)) == ("a", False, False, "1.0")
        # What was given up is not tried again: no swinging between two bad applications.
        waits = []
        for _ in range(12):
            slots = boot(root)
            assert seen(slots) == ("a", False, True, "1.0")
            waits.append(slots.wait_s)
        assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
        slots = boot(root, PWRON)
        assert (slots.safe, slots.wait_s) == (True, 0)
        slots.mark_well()
        assert seen(boot(root)) == ("a", False, False, "1.0")


def test_node_that_is_well_forgets_its_crashes():
    with Flash() as root:
        make_node(root)
        boot_confirmed(root, "2.0")
        for _ in range(3 * UNWELL_MAX):
            slots = boot(root, WDT)
            assert seen(slots) == ("b", False, False, "2.0")
            slots.mark_well()


def test_damaged_active_slot_is_left_at_the_first_crash():
    with Flash() as root:
        make_node(root)
        boot_confirmed(root, "2.0")
        damage(root, "b")
        assert boot(root, PWRON).slot == "b"
        slots = boot(root)
        assert seen(slots) == ("a", False, False, "1.0")
        assert slots.note == "fallback"


def test_damaged_slot_without_another_runs_in_safe_mode():
    with Flash() as root:
        make_node(root)
        damage(root, "a")
        slots = boot(root)
        assert (slots.slot, slots.safe, slots.wait_s) == ("a", True, 0)


def test_state_file_full_of_nonsense_is_a_new_node():
    with Flash() as root:
        make_node(root)
        for nonsense in (b"", b"\xff\x00", b"null", b"[]", b'{"act":"c"}', b'{"act":"a","trial":"b"}'):
            with open(root + "/ota.json", "wb") as file:
                file.write(nonsense)
            assert seen(boot(root, PWRON)) == ("a", False, False, "1.0")


def test_power_cut_at_every_flash_operation_of_an_update_leaves_old_or_new():
    if vfs is None:
        return
    image = _image_of_new_node()
    total, _ = _update(image, 0, 0)
    outcomes = {}
    # Of the operation that is cut nothing happens, all of it (and the rest is never called), or a part.
    for cut, torn in [(cut, torn) for torn in (0, -1, 7919) for cut in range(1, total + 1)]:
        _, left = _update(image, cut, torn * cut if torn > 0 else torn)
        nor = Nor(image=left)
        mount(nor, _MOUNT)
        slots = boot(_MOUNT, PWRON)
        version = slots.verify(slots.slot)
        assert version == ("2.0" if slots.slot == "b" else "1.0"), (cut, slots.slot, version)
        outcomes[version, slots.trial] = outcomes.get((version, slots.trial), 0) + 1
        if version == "1.0":
            # The gateway sends it again.
            assert install(slots, "2.0"), cut
            slots = boot(_MOUNT)
        slots.confirm()
        assert seen(boot(_MOUNT)) == ("b", False, False, "2.0"), cut
        unmount(nor, _MOUNT)
        gc.collect()
    # A cut came before the trial was decided, and one after it.
    assert outcomes["1.0", False] and outcomes["2.0", True]


def _image_of_new_node():
    nor = Nor()
    mount(nor, _MOUNT, fresh=True)
    make_node(_MOUNT)
    image = nor.image()
    unmount(nor, _MOUNT)
    return image


def _update(image, cut, torn):
    """Install 2.0, start it, confirm it, with the power cut at operation `cut`; operations done, and the
    flash after.
    """
    nor = Nor(image=image, cut=cut, torn=torn)
    try:
        mount(nor, _MOUNT)
        assert install(boot(_MOUNT, PWRON), "2.0")
        boot(_MOUNT).confirm()
    except OSError:
        assert nor.dead
    done = nor.operations
    left = nor.image()
    unmount(nor, _MOUNT)
    gc.collect()
    return done, left
