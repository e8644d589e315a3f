"""What a session promises beyond the plain exchange: generations, MICs, bounds, commands, quotas."""

from pairkit import NODE, TIME, Gateway, Node, exchange, greet, keys_of
from simpang_protocol import codes, commands, frame, record, schema
from simpang_protocol.ack import NO_ECHO, Block, parse_ack
from simpang_protocol.ccm import Ccm
from simpang_protocol.errors import FrameError
from simpang_protocol.frame import parse_header
from simpang_protocol.hello import build_up
from simpang_protocol.shelf import MAX_WINDOWS


def _sealed(epoch, counter, plain, generation=1, kind=frame.DATA, **flags):
    header = frame.build_header(frame.UP, kind, NODE, epoch, counter, generation, **flags)
    return frame.seal(Ccm(keys_of(generation)["up"]), header, plain)


def _record(seq, epoch=None):
    row = (5,) + (None,) * (len(schema.AIR.fields) - 1)
    data = record.build(schema.AIR, seq, record.SYNCED, 9, 0, [row])
    return data if epoch is None else record.with_epoch(data, epoch)


# ---- generations


def test_the_following_generation_takes_over_with_its_first_hello():
    gateway = Gateway(following=2)
    old = Node()
    greet(old, gateway)
    old.air(1)
    exchange(old, gateway, 10)
    new = Node(generation=2, epoch=9)
    new.air(1)
    for sent in new.say(20):
        found = gateway.take(sent, 20)
        assert found.cause is None
        new.link.receive(found.reply, 20)
    assert gateway.promoted == [2] and new.link.greeted
    exchange(new, gateway, 30)
    assert gateway.rows[-1][0] >= 9
    old.boot(99)
    old.air(1)
    assert [gateway.take(sent, 40).cause for sent in old.say(40)] == ["generation"]


def test_the_following_generation_takes_over_with_its_first_frame():
    gateway = Gateway(following=6)
    gateway.take(_sealed(3, 0, _record(0), 1))
    found = gateway.take(_sealed(4, 0, _record(0), 6))
    assert found.cause is None and gateway.promoted == [6]
    assert not gateway.session.downlink.greeted


def test_a_generation_that_cannot_be_recorded_is_not_accepted():
    gateway = Gateway(following=2)

    def refuse(generation):
        raise OSError("the card is full")

    gateway.promote = refuse
    try:
        gateway.take(_sealed(4, 0, _record(0), 2))
        raise AssertionError("accepted")
    except OSError:
        pass
    assert not gateway.waiting and gateway.session.epoch == 0
    assert gateway.take(_sealed(4, 0, _record(0), 1)).cause is None


def test_generations_whose_two_bits_agree_are_told_apart_by_their_keys():
    gateway = Gateway(following=5)
    assert gateway.take(_sealed(3, 0, _record(0), 1)).cause is None
    assert gateway.promoted == []
    assert gateway.take(_sealed(4, 0, _record(0), 5)).cause is None
    assert gateway.promoted == [5]
    assert gateway.take(_sealed(5, 0, _record(0), 1)).cause == "bad_mic"


def test_a_node_with_following_keys_is_solicited_with_them_too():
    gateway = Gateway(following=2)
    generations = set()
    for second in range(4):
        generations.add(parse_header(gateway.session.solicit(1000 * second)).generation)
    assert generations == {1, 2}


# ---- MIC


def test_the_line_fixes_the_length_of_the_mic():
    gateway = Gateway()
    short = Node(mic=4)
    greet(short, gateway)
    short.air(2)
    sent = short.say(10)
    assert [parse_header(data).mic for data in sent] == [4, 4]
    # 9 bytes of header, 4 of MIC.
    plain = record.build(schema.AIR, 0, record.SYNCED, 9, 0, [(100, 100, 100) + (None,) * 7])
    assert len(sent[0]) == 13 + len(plain)
    assert [gateway.take(data, 10).cause for data in sent] == ["mic_length", "mic_length"]
    assert [gateway.take(data, 10, 4).cause for data in sent] == [None, None]
    assert gateway.take(_sealed(1, 9, _record(5)), 10, 4).cause == "mic_length"


def test_a_short_mic_has_a_key_of_its_own():
    header = frame.build_header(frame.UP, frame.DATA, NODE, 3, 0, 1, mic=4)
    gateway = Gateway()
    assert gateway.take(frame.seal(Ccm(keys_of(1)["up"], 4), header, _record(0)), 0, 4).cause == "bad_mic"
    assert gateway.take(frame.seal(Ccm(keys_of(1)["up4"], 4), header, _record(0)), 0, 4).cause is None


# ---- MULTI


def test_a_frame_carries_several_records_where_they_fit():
    gateway = Gateway()
    node = Node(multi=True)
    greet(node, gateway)
    node.air(40)
    frames = 0
    for turn in range(5):
        found = exchange(node, gateway, 100 * turn)
        frames += len(found)
    assert len(gateway.rows) == len(set(gateway.rows)) == 40 and not node.journal.records
    assert frames < 10
    for turn in range(3):
        for sent in node.say(100 * turn):
            assert len(sent) <= 250


# ---- bounds


def _many_epochs(gateway, count):
    """Records of one epoch after the other, each frame in its own epoch."""
    for epoch in range(1, count + 1):
        assert gateway.take(_sealed(epoch, 0, _record(0))).cause is None
        gateway.commit()


def test_eight_windows_stay_in_memory():
    gateway = Gateway()
    _many_epochs(gateway, 40)
    held = gateway.session._intake.shelf.epochs()
    assert len(held) == MAX_WINDOWS and max(held) == 40
    assert len(gateway.windows) == 40


def test_a_window_that_was_put_away_is_asked_for_and_nothing_is_taken_before():
    gateway = Gateway()
    _many_epochs(gateway, 20)
    rows = len(gateway.rows)
    found = gateway.take(_sealed(20, 1, _record(0, epoch=2)))
    assert found.wanted == [2] and len(gateway.rows) == rows and not found.changes.records
    gateway.commit()
    gateway.session.put_back(gateway.windows[2], [])
    found = gateway.take(_sealed(20, 2, _record(0, epoch=2)))
    assert found.wanted == [] and found.notes == {"duplicate": 1}
    found = gateway.take(_sealed(20, 3, _record(1, epoch=2)))
    assert [(entry.epoch, entry.seq) for entry in found.changes.records] == [(2, 1)]


def test_a_floor_of_an_epoch_that_was_put_away_waits_for_its_window():
    gateway = Gateway()
    _many_epochs(gateway, 20)
    head = bytes((1, 3, 0, 0, 9, 0))
    found = gateway.take(_sealed(20, 1, head, kind=frame.EMPTY, ack_requested=True))
    assert found.wanted == [3] and not found.changes.lost
    gateway.session.put_back(gateway.windows[3], [])
    found = gateway.take(_sealed(20, 2, head, kind=frame.EMPTY, ack_requested=True))
    assert found.changes.lost == [(3, 1, 8, "floor")]


def test_a_drop_event_waits_for_the_window_that_it_speaks_of():
    gateway = Gateway()
    _many_epochs(gateway, 20)
    item = record.lost_range_item(3, 1, 8, codes.DROP_FULL)
    event = record.build(schema.EVENT, 1, record.SYNCED, 9, 0, [(codes.DROP, 1, 3, 8)], [item])
    found = gateway.take(_sealed(20, 1, event))
    assert found.wanted == [3] and not found.changes.records
    gateway.session.put_back(gateway.windows[3], [])
    found = gateway.take(_sealed(20, 2, event))
    assert len(found.changes.records) == 1
    assert found.changes.lost == [(3, 1, 8, "journal_full")]


def test_with_few_windows_no_store_is_asked():
    gateway = Gateway()
    _many_epochs(gateway, 3)
    gateway.begin()
    found = gateway.take(_sealed(4, 0, _record(0, epoch=2)))
    assert found.wanted == [] and found.notes == {"duplicate": 1}


def test_a_window_with_changes_under_way_is_not_put_away():
    gateway = Gateway()
    for epoch in range(1, 20):
        assert gateway.take(_sealed(epoch, 0, _record(0))).cause is None
    assert len(gateway.session._intake.shelf.epochs()) == 19
    gateway.commit()
    assert gateway.take(_sealed(19, 1, _record(1))).cause is None
    assert len(gateway.session._intake.shelf.epochs()) == MAX_WINDOWS


def test_epochs_begin_slowly():
    gateway = Gateway(new_epoch_every_ms=10000)
    assert gateway.take(_sealed(1, 0, _record(0)), 0).cause is None
    assert gateway.take(_sealed(2, 0, _record(0)), 9999).cause == "epoch_rate"
    assert gateway.take(_sealed(2, 0, _record(0)), 10000).cause is None


def test_a_wild_floor_is_noted():
    gateway = Gateway()
    head = bytes((1, 1, 0, 0, 0, 0xF0))
    found = gateway.take(_sealed(1, 0, head, kind=frame.EMPTY, ack_requested=True))
    assert found.notes == {"floor_jump": 1} and found.changes.lost == [(1, 0, 0xEFFF, "floor")]


def test_ranges_of_the_ledger_stay_bounded():
    gateway = Gateway()
    counter = 0
    for step in range(300):
        seq = 2 * step + 1
        head = bytes((1, 1, 0, 0)) + (seq + 1).to_bytes(2, "little")
        gateway.take(_sealed(1, counter, _record(seq)))
        gateway.take(_sealed(1, counter + 1, head, kind=frame.EMPTY, ack_requested=True))
        counter += 2
        gateway.commit()
    entry = gateway.session._intake.shelf.find(1)
    assert len(gateway.losses) == 300
    assert len(entry.losses) <= 64 and len(entry.committed_losses) <= 64


def test_what_the_quota_refuses_changes_nothing_and_comes_again():
    gateway = Gateway()
    gateway.admits = False
    assert gateway.take(_sealed(1, 0, _record(0))).cause == "quota"
    assert not gateway.waiting
    gateway.admits = True
    assert gateway.take(_sealed(1, 1, _record(0))).cause is None


# ---- restart with what the store gave


def test_a_restart_refuses_the_counters_of_before():
    gateway = Gateway()
    _many_epochs(gateway, 12)
    newest = sorted(gateway.windows.values(), key=lambda state: state.epoch)[-MAX_WINDOWS:]
    gateway.begin(windows=newest)
    assert gateway.session.epoch == 12
    assert gateway.take(_sealed(12, 0, _record(0))).cause == "replay"
    assert gateway.take(_sealed(11, 9, _record(3))).cause == "old_epoch"
    assert gateway.take(_sealed(12, 1, _record(0, epoch=1))).wanted == [1]


def test_a_counter_is_not_accepted_again_after_a_commit_failed():
    gateway = Gateway()
    gateway.take(_sealed(1, 0, _record(0)))
    gateway.commit()
    again = _sealed(1, 1, _record(1))
    gateway.take(again)
    gateway.waiting = []
    gateway.session.roll_back()
    assert gateway.take(again).cause == "replay"
    found = gateway.take(_sealed(1, 2, _record(1)))
    assert [entry.seq for entry in found.changes.records] == [1]


# ---- answers


def test_an_answer_may_be_given_twice_and_speaks_of_the_same_blocks():
    gateway = Gateway()
    node = Node()
    greet(node, gateway)
    node.air(1)
    for sent in node.say(10):
        gateway.take(sent, 10)
    gateway.commit()
    first = gateway.session.answer(20, TIME, 16)
    second = gateway.session.answer(20, TIME, 16)
    assert first != second and len(first) == len(second)
    node.link.receive(second, 25)
    assert not node.journal.records
    node.link.receive(first, 26)
    assert node.link.counters["replay"] == 1


def test_an_answer_to_a_new_epoch_echoes_nothing_of_the_old_one():
    gateway = Gateway()
    gateway.take(_sealed(1, 40, _record(0)))
    gateway.commit()
    node = Node(epoch=5)
    node.link.receive(gateway.session.solicit(0), 0)
    for sent in node.say(0):
        node.link.receive(gateway.take(sent).reply, 1)
    answer = gateway.session.answer(2, TIME, 16)
    header = parse_header(answer)
    run = gateway.session.downlink.run
    plain = frame.unseal(Ccm(keys_of(1)["down"]), header, answer, run, node.link.epoch)
    assert parse_ack(plain).echo == NO_ECHO


def test_an_answer_for_a_lost_epoch_is_repeated_once_it_is_on_record():
    gateway = Gateway()
    node = Node()
    node.boot(None)
    node.link.receive(gateway.session.solicit(0), 0)
    (hello,) = node.say(0)
    assert gateway.take(hello).reply is None
    (answer,) = gateway.commit()
    assert gateway.take(hello).reply == answer


def test_a_block_that_says_less_lowers_no_base():
    gateway = Gateway()
    node = Node()
    greet(node, gateway)
    node.air(3)
    exchange(node, gateway, 10)
    epoch = node.link.epoch
    node.link._flight.take(Block(epoch, 1, 0))
    assert node.link._flight.given[epoch] == 3
    for plain in (b"\0\0\x01\0\x02" + bytes(6),):
        try:
            parse_ack(plain)
            raise AssertionError("epoch 0")
        except FrameError as error:
            assert error.cause == "ack"


def test_the_loss_of_the_uplink_is_seen_in_its_counters():
    gateway = Gateway()
    for counter in range(0, 400, 2):
        gateway.take(_sealed(1, counter, _record(0)))
    assert 350 < gateway.session.loss_permille < 650
    for counter in range(400, 600):
        gateway.take(_sealed(1, counter, _record(0)))
    assert gateway.session.loss_permille < 50


def test_a_node_that_was_answered_does_not_go_on_backing_off():
    gateway = Gateway()
    node = Node()
    greet(node, gateway)
    now_ms = 60000
    node.air(1)
    node.say(now_ms)
    for _ in range(12):
        now_ms += node.link.wait_ms(now_ms)
        node.say(now_ms)
    assert node.link.wait_ms(now_ms) > 10000
    exchange(node, gateway, now_ms + 60000)
    assert not node.journal.records
    node.air(1)
    now_ms += 200000
    assert node.say(now_ms)
    assert node.link.wait_ms(now_ms) <= 1200


# ---- commands


def _result(seq, command, outcome, text):
    return record.build(
        schema.EVENT,
        seq,
        record.SYNCED,
        9,
        0,
        [commands.result_row(command, outcome)],
        [record.text_item(text)],
    )


def test_a_command_is_sent_until_its_result_is_committed():
    gateway = Gateway()
    node = Node()
    greet(node, gateway)
    node.air(1)
    exchange(node, gateway, 5)
    gateway.session.post(3, commands.IDENTIFY, b"\x0a\x00")
    first = gateway.session.mail(10)
    node.link.receive(first, 11)
    assert node.commands == [(frame.CONFIG, commands.build_config(3, commands.IDENTIFY, b"\x0a\x00"))]
    assert gateway.session.mail(5000) is None
    again = gateway.session.mail(10010)
    assert again is not None and again != first
    node.journal.create(lambda seq: _result(seq, 3, codes.DONE, "blinking"))
    found = [gateway.take(sent, 10020) for sent in node.say(10020)]
    assert found[0].changes.results == [(3, codes.DONE, "blinking")]
    assert gateway.session.pending_command == 3
    gateway.commit()
    assert gateway.session.pending_command is None and gateway.session.mail(99999) is None


def test_a_command_goes_out_again_after_a_hello():
    gateway = Gateway()
    node = Node()
    greet(node, gateway)
    node.air(1)
    exchange(node, gateway, 5)
    gateway.session.post(3, commands.HEALTH)
    assert gateway.session.mail(10) is not None and gateway.session.mail(20) is None
    hello = build_up(keys_of(1)["hello"], NODE, 1, 1, node.link.epoch, b"challeng")
    assert gateway.take(hello, 30).reply is not None
    assert gateway.session.mail(40) is not None


def test_a_withdrawn_command_is_not_sent_again_and_its_result_is_taken():
    gateway = Gateway()
    node = Node()
    greet(node, gateway)
    node.air(1)
    exchange(node, gateway, 5)
    gateway.session.post(3, commands.HEALTH)
    gateway.session.withdraw(2)
    assert gateway.session.mail(10) is not None
    gateway.session.withdraw(3)
    assert gateway.session.pending_command is None and gateway.session.mail(99999) is None
    node.journal.create(lambda seq: _result(seq, 3, codes.DONE, ""))
    found = [gateway.take(sent, 100010) for sent in node.say(100010)]
    assert found[0].changes.results == [(3, codes.DONE, "")]


def test_a_command_recorded_before_a_reset_is_refused_after_it():
    gateway = Gateway()
    node = Node()
    greet(node, gateway)
    node.air(1)
    exchange(node, gateway, 5)
    gateway.session.post(3, commands.RESTART)
    recorded = gateway.session.mail(10)
    # The reset: the same run of the gateway, a new epoch.
    node.boot(node.link.epoch + 1)
    node.link.receive(recorded, 15)
    greet(node, gateway, 20)
    node.link.receive(recorded, 25)
    node.air(1)
    for sent in node.say(30):
        gateway.take(sent, 30)
    node.link.receive(recorded, 40)
    assert node.commands == []
    assert node.link.counters["unknown_run"] == 1 and node.link.counters["bad_mic"] == 2
    # The gateway itself can still have it executed.
    node.link.receive(gateway.session.mail(50), 50)
    assert len(node.commands) == 1


def test_no_command_is_sent_to_a_node_that_was_not_greeted():
    gateway = Gateway()
    gateway.session.post(3, commands.HEALTH)
    assert gateway.session.mail(10) is None


def test_update_status_is_handed_out():
    gateway = Gateway()
    plain = commands.build_update_status(9, commands.RECEIVING, 4, b"\x05")
    found = gateway.take(_sealed(1, 0, plain, kind=frame.UPDATE_STATUS))
    assert found.update_status == plain and found.cause is None
    found = gateway.take(_sealed(1, 1, b"\0" + plain, kind=frame.UPDATE_STATUS, ack_requested=True))
    assert found.update_status == plain
