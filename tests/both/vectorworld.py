"""Both ends as the scripted vectors use them: every random byte, every moment and every commit is stated.

Times in scripts are milliseconds; at `t` the gateway's time is 210000000 s + `t` ms after 2020-01-01, and
both machines started at 0.
"""

import os

from node.journal import Journal
from simpang_protocol import frame, rtcstate, times
from simpang_protocol.errors import ProtocolError
from simpang_protocol.keyset import KeySet
from simpang_protocol.nodelink import NodeLink
from simpang_protocol.polledlink import PolledLink
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Downlink, WindowState
from vectorkit import same

try:
    import tempfile

    _KEEP = tempfile.TemporaryDirectory()
    FOLDER = _KEEP.name + "/journal"
except ImportError:  # the VM runs in a folder of its own
    FOLDER = "vector_journal"

BEGIN_S = 210000000
CREDIT = 16
SILENCE_MS = 40


def keys_of(group):
    """Return the keys that a group states, as bytes."""
    return {name: bytes.fromhex(value) for name, value in group["keys"].items()}


def time_at(now_ms):
    """Return the gateway's time at that moment of the script."""
    return times.Time(BEGIN_S + now_ms // 1000, now_ms % 1000, times.SYNCED)


class GatewayEnd:
    """A session and its store. `sent` collects what it sends; nothing is committed before `commit`."""

    def __init__(self, group, test, mic=8, polled=False):
        self.group = group
        self.mic = mic
        # On a bus nothing is answered before the next poll.
        self.polled = polled
        stored = test["stored"]
        self.windows = {}
        for epoch, base, bits, counter in stored["windows"]:
            self.windows[epoch] = WindowState(epoch, base, int(bits, 16), counter)
        self.ledger = [tuple(entry) for entry in stored["ledger"]]
        self.records = []
        self.results = []
        self.born = stored["born"]
        self.challenges = [bytes.fromhex(value) for value in test["challenges"]]
        self.runs = [bytes.fromhex(value) for value in test["runs"]]
        self.sent = []
        self.start()

    def start(self):
        """Begin a process: it knows what was committed, and nothing else."""
        self._queue = []
        self._quiet_at = None
        following = self.group.get("following")
        self.session = NodeSession(
            self.group["node"],
            KeySet(self.group["generation"], keys_of(self.group)),
            None if following is None else KeySet(following["generation"], keys_of(following)),
            Downlink(lambda: self.runs.pop(0)),
            [state.copy() for state in self.windows.values()],
            [entry[:3] for entry in self.ledger],
            self.born,
            self,
        )

    # ---- what a session asks of its host

    def reserve(self, epoch):
        pass

    def promote(self, generation):
        self.promoted = generation

    def admit(self, size):
        return True

    def random_bytes(self, count):
        assert count == 8
        return self.challenges.pop(0)

    # ---- steps

    def hear(self, data, now_ms):
        """Take one frame; return "accepted" or the cause, and what was noted inside the frame."""
        try:
            header = frame.parse_header(data)
        except ProtocolError as error:
            return error.cause, {}
        got = self.session.receive(header, data, now_ms, now_ms, time_at(now_ms), self.mic)
        if got.cause is not None:
            return got.cause, {}
        if got.reply is not None and not self.polled:
            self.sent.append(got.reply)
        if got.changes:
            self.session.submitted()
            self._queue.append(got.changes)
        if got.sealed:
            self._quiet_at = now_ms + SILENCE_MS
        self.answer(now_ms)
        return "accepted", got.notes

    def commit(self, now_ms):
        """Make durable what came since the last commit, and answer."""
        queue, self._queue = self._queue, []
        for changes in queue:
            for entry in changes.records:
                self.records.append((entry.epoch, entry.seq))
            for epoch, state in changes.windows.items():
                self.windows[epoch] = state.copy()
            self.ledger += changes.lost
            for epoch, seq in changes.regained:
                self._regain(epoch, seq)
            self.results += changes.results
        for changes in queue:
            self.session.committed(changes)
            if changes.then_send is not None:
                self.sent.append(changes.then_send)
        self.answer(now_ms)

    def _regain(self, epoch, seq):
        for at, (lost_epoch, first, last, cause) in enumerate(self.ledger):
            if lost_epoch == epoch and first <= seq <= last:
                rest = [(epoch, first, seq - 1, cause), (epoch, seq + 1, last, cause)]
                self.ledger[at : at + 1] = [entry for entry in rest if entry[1] <= entry[2]]
                return

    def tick(self, now_ms):
        """Let the line fall silent."""
        if self._quiet_at is not None and now_ms >= self._quiet_at:
            self._quiet_at = None
            if self.session.unanswered:
                self.session.ack_requested = True
                self.answer(now_ms)

    def poll(self, now_ms):
        """Take the node's turn on a bus: a poll, or a SOLICIT; nothing while a commit is pending."""
        frames = self.session.poll_frames(now_ms, time_at(now_ms), CREDIT)
        if frames == []:
            solicit = self.session.solicit(now_ms)
            frames = [] if solicit is None else [solicit]
        self.sent += frames or []

    def answer(self, now_ms):
        """Send what is due: a command, and the acknowledgement."""
        if self.polled or not (self.session.ack_requested and self.session.idle):
            return
        self._quiet_at = None
        for data in (
            self.session.mail(now_ms),
            self.session.answer(now_ms, time_at(now_ms), CREDIT),
        ):
            if data is not None:
                self.sent.append(data)

    def state(self):
        """Return what is committed, as the files write it."""
        return {
            "windows": [
                [w.epoch, w.base, "%016x" % w.bits, w.counter]
                for w in sorted(self.windows.values(), key=lambda w: w.epoch)
            ],
            "ledger": sorted([list(entry) for entry in self.ledger]),
            "records": sorted([list(entry) for entry in self.records]),
        }


class Nvs:
    """The epoch that the node keeps."""

    def __init__(self, epoch):
        self.value = epoch
        self.least = 1

    def save(self, epoch):
        self.value = epoch
        self.least = max(self.least, epoch)


class NodeEnd:
    """A node's link with a real journal, from a cold boot, or from deep sleep where there is a `memory`."""

    def __init__(self, group, test, polled=False):
        _remove_tree(FOLDER)
        self.challenges = [bytes.fromhex(value) for value in test["node_challenges"]]
        self.journal = Journal(FOLDER, 64000, None, None)
        for entry in test["journal"]:
            self.journal.start_epoch(entry["epoch"])
            self.journal.seq = entry["first"]
            for data in entry["records"]:
                self.journal.append(bytes.fromhex(data))
        self.commands = []
        self.now = 0
        self.synced = False
        epoch = test["epoch"]
        resume = None
        if "memory" in test:
            resume = rtcstate.parse(bytes.fromhex(test["memory"]))
        else:
            self.journal.start_epoch(epoch)
        kind = PolledLink if polled else NodeLink
        self.link = kind(
            group["node"],
            group["generation"],
            keys_of(group),
            self.journal,
            Nvs(epoch),
            epoch,
            self._random,
            lambda: self.now // 1000,
            lambda: self.synced,
            self._take_time,
            resume=resume,
            on_command=self._take_command,
        )

    def _random(self, count):
        # The tag of the boot is drawn too; it matters only where the epoch is lost.
        return self.challenges.pop(0) if count == 8 else bytes(count)

    def _take_time(self, time, fresh):
        self.synced = True

    def _take_command(self, kind, plain):
        self.commands.append((kind, plain))

    def create(self, data):
        """Append a record that was made beforehand."""
        self.journal.append(data)

    def hear(self, data, now_ms):
        """Take one frame; return "accepted" or the cause for which it was refused."""
        self.now = now_ms
        before = dict(self.link.counters)
        self.link.receive(data, now_ms)
        for cause, count in self.link.counters.items():
            if count != before.get(cause, 0):
                return "accepted" if cause in ("acks", "greeted", "commands") else cause
        return "accepted"

    def polled(self, now_ms):
        """Return what the node sends at this moment."""
        self.now = now_ms
        sent = []
        data = self.link.poll(now_ms)
        while data is not None:
            sent.append(data)
            data = self.link.poll(now_ms)
        return sent

    def held(self):
        """Return [epoch, seq] of every record that the journal would still send, oldest first."""
        found = []
        entry = self.journal.next_after(0, -1)
        while entry is not None:
            found.append([entry[0], entry[1]])
            entry = self.journal.next_after(entry[0], entry[1])
        return found


def _remove_tree(folder):
    try:
        for name in os.listdir(folder):
            os.remove(folder + "/" + name)
        os.rmdir(folder)
    except OSError:
        pass


def greeting(test, group):
    """Check a group of type `greeting`: whom the gateway answers, at once and after the commit."""
    gateway = GatewayEnd(group, test)
    for step in test["steps"]:
        at = step["at"]
        if "solicits" in step:
            found = gateway.session.solicit(at)
            same((at, found), (at, None if step["solicits"] is None else bytes.fromhex(step["solicits"])))
        elif step.get("restarts"):
            gateway.start()
        else:
            verdict, _notes = gateway.hear(bytes.fromhex(step["frame"]), at)
            same((at, verdict), (at, step["verdict"]))
            for name in ("at_once", "after_commit"):
                sent, gateway.sent = gateway.sent, []
                same((at, name, sent), (at, name, [bytes.fromhex(entry) for entry in step[name]]))
                gateway.commit(at)
            same((at, gateway.state()["windows"]), (at, step["windows"]))
