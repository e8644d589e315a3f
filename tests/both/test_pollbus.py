"""The master of an RS-485 bus in virtual time: each rule of its schedule, and what the rules are for."""

import random

from busworld import BYTE_US, POLL, SOLICIT, World, down
from simpang_protocol import frame as _frame
from simpang_protocol.pollbus import ABSENT_MS, ABSENT_TURNS, PAUSES_MS, PollBus, Timing

TURN_US = 2000
# The bus counts in whole milliseconds: the end of what was sent is rounded up, then the turn begins.
ROUNDING_US = 1000


def _polls(world, node):
    return [turn for turn in world.turns_of(node) if turn[1] == "poll"]


def _figures(world, node):
    return next(found for found in world.bus.figures(world.now_us // 1000) if found["node"] == node)


def _gaps(times):
    return [times[index + 1] - times[index] for index in range(len(times) - 1)]


# ---- one at a time


def test_nobody_talks_into_a_burst():
    for loss in (0.0, 0.05, 0.3, 0.6):
        world = World(7, seed=3, backlog=10**6)
        world.loss = loss
        world.run(8000)
        assert world.gateway.stored > 100 and world.hits == 0, "loss %s: %d hits" % (loss, world.hits)


def test_end_closes_a_burst_at_once():
    world = World(2, backlog=1000)
    world.run(3000)
    polled = [us for us, _, _ in world.turns]
    # Both nodes have records and commits are quicker than bursts, so somebody is always due.
    for us, _ in world.ends[5:-1]:
        following = min([at for at in polled if at >= us])
        assert TURN_US - ROUNDING_US <= following - us <= TURN_US + ROUNDING_US, following - us


def test_silence_closes_a_burst_without_end():
    for gap_ms in (6, 25):
        world = World(2, Timing(gap_ms=gap_ms), backlog=1000)
        for node in world.nodes.values():
            node.lose_end = True
        world.run(3000)
        polled = [us for us, _, _ in world.turns]
        pauses = [min([at for at in polled if at >= us]) - us for us, _ in world.ends[5:-1]]
        # The silence is pause enough: nobody has to let go of the line any more.
        expected = gap_ms * 1000
        assert len(pauses) > 10
        assert all([expected - ROUNDING_US <= us <= expected + ROUNDING_US for us in pauses])
        assert world.hits == 0


def test_noise_before_an_answer_does_not_end_the_wait_for_it():
    world = World(1, Timing(gap_ms=3))
    node = world.nodes[1]
    node.delay_us = 10000
    world.run(300)
    polls = len(world.turns)
    assert world.run_until(lambda: len(world.turns) > polls, 500)
    world.run(5)
    world.noise()
    world.run(200)
    assert _figures(world, 1)["unanswered"] == 0 and world.hits == 0


def test_own_echo_is_no_answer():
    bus = PollBus(World(1).gateway, Timing())
    assert bus.step(0)
    bus.sent(10)
    bus.heard_bytes(9)
    bus.answered(1, False, 9)
    # An echo that is taken for the answer's first byte would make the response time too short, or negative.
    assert bus.figures(0)[0]["response_ms"] is None


def test_who_answers_late_has_the_line_until_silence():
    world = World(1, Timing(gap_ms=6, cycle_ms=400))
    node = world.nodes[1]
    world.run(1000)
    node.delay_us = 120000
    before = _figures(world, 1)
    # Nobody else is due, so it speaks: a long burst whose END is lost, into which the next poll would fall.
    node.backlog = 48
    node.lose_end = True
    assert world.run_until(lambda: world.gateway.stored >= 45, 8000)
    after = _figures(world, 1)
    assert after["late"] > before["late"] and world.hits == 0
    # What came late tells how long it takes: now the bus waits long enough.
    assert after["timeout_ms"] >= 120


def test_a_line_that_never_falls_silent_does_not_stop_the_bus():
    world = World(1)
    world.nodes[1].mute = True
    for ms in range(6000):
        world.at(ms * 1000, world.noise)
    world.run(6000)
    assert len(world.turns) >= 6 and world.bus.babbled >= 5
    world.run(1000)
    assert world.bus.babbled == 0


# ---- how long to wait


def test_the_wait_for_an_answer_follows_the_node():
    world = World(2, Timing(gap_ms=6))
    world.nodes[2].delay_us = 44000
    assert _new_timeout() == 60
    world.run(3000)
    quick, slow = _figures(world, 1), _figures(world, 2)
    assert quick["timeout_ms"] == 15 and 3 <= quick["response_ms"] <= 5
    assert 44 <= slow["timeout_ms"] <= 60 and slow["unanswered"] == 0


def _new_timeout():
    world = World(1)
    world.nodes[1].on = False
    world.run(10)
    return _figures(world, 1)["timeout_ms"]


def test_a_poll_without_answer_takes_no_longer_than_that():
    world = World(1, Timing(gap_ms=6, cycle_ms=5))
    world.run(3000)
    world.nodes[1].on = False
    world.run(100)
    first = len(world.turns)
    world.run(100)
    gaps = _gaps([us for us, _, _ in world.turns[first - 1 :]])
    assert gaps and max(gaps) <= (POLL + 6) * BYTE_US + 15000 + TURN_US + 2 * ROUNDING_US


def test_a_node_that_became_slow_is_found_again():
    world = World(3, Timing(gap_ms=6), backlog=10**6)
    world.run(3000)
    world.nodes[1].backlog = 0
    world.nodes[1].delay_us = 45000
    world.run(10000)
    heard = _figures(world, 1)["answers"]
    world.run(5000)
    # It keeps still where it would meet another's turn; the long wait after a HELLO-SOLICIT finds its pace.
    assert _figures(world, 1)["answers"] - heard > 10
    assert _figures(world, 1)["timeout_ms"] >= 45 and world.hits == 0


# ---- commits


def test_a_node_is_polled_again_only_when_its_burst_is_committed():
    world = World(3, backlog=10**6)
    world.gateway.commit_ms = 700
    world.run(650)
    # All three have had their burst; nobody may be polled before its commit, nor asked about all the time.
    assert len(world.gateway.asked) <= 9
    assert [turn[2] for turn in world.turns] == [1, 2, 3]
    world.run(5000)
    for node in (1, 2, 3):
        starts = [us for us, _, _ in world.turns_of(node)]
        assert min(_gaps(starts)) > 700000
    assert world.gateway.stored >= 6 * 16


def test_others_are_polled_while_one_waits_for_its_commit():
    world = World(3, backlog=10**6)
    world.nodes[2].backlog = 0
    world.nodes[3].backlog = 0
    world.gateway.commit_ms = 500
    world.run(5000)
    assert len(_polls(world, 2)) >= 14 and len(_polls(world, 3)) >= 14
    assert 9 <= len(_polls(world, 1)) <= 10


def test_the_poll_follows_the_commit():
    world = World(1, backlog=10**6)
    world.gateway.commit_ms = 300
    commits = []
    commit = world.gateway.commit

    def note(node):
        commit(node)
        if node not in world.gateway.pending:
            commits.append(world.now_us)

    world.gateway.commit = note
    world.run(5000)
    for us in commits[:-1]:
        following = min([turn[0] for turn in world.turns if turn[0] >= us])
        assert following - us <= ROUNDING_US
    assert len(commits) > 8


# ---- fairness and rest


def test_turns_are_shared_fairly():
    world = World(10, backlog=10**6)
    world.loss = 0.3
    world.run(60000)
    counts = [_figures(world, node)["polls"] + _figures(world, node)["solicits"] for node in world.nodes]
    assert max(counts) - min(counts) <= max(counts) // 4, counts


def test_a_backlog_does_not_keep_the_others_waiting():
    world = World(4)
    world.nodes[3].backlog = 10**6
    world.run(10000)
    # 100 ms for each node of the bus; a burst of 16 frames, which nobody interrupts, lasts about 130 ms.
    for node in (1, 2, 4):
        assert max(_gaps([us for us, _, _ in world.turns_of(node)])) < 400000 + 150000
    assert len(_polls(world, 3)) >= 60


def test_many_idle_nodes_take_little_from_one_with_a_backlog():
    world = World(20)
    world.nodes[3].backlog = 10**6
    world.run(20000)
    # On a good line its share would be 30 % if each of the others had a turn as often as on an idle bus.
    assert world.gateway.stored / 20 >= 75
    world.nodes[3].backlog = 0
    world.run(4000)
    polls = len(_polls(world, 5))
    world.run(10000)
    # And soon after it the bus is as quick as before.
    assert len(_polls(world, 5)) - polls >= 35


def test_no_rest_while_there_is_a_backlog():
    world = World(2, Timing(gap_ms=6, cycle_ms=1000), backlog=160)
    assert world.run_until(lambda: world.gateway.stored == 320, 4000)
    assert world.now_us < 3500000


def test_an_idle_bus_rests():
    world = World(4, Timing(gap_ms=6, cycle_ms=100))
    world.run(1000)
    steps, turns = world.steps, len(world.turns)
    world.run(10000)
    assert 380 <= len(world.turns) - turns <= 404
    # Each turn wakes the master for its reports (here up to five) and for the next turn.
    assert world.steps - steps <= 8 * 400
    world = World(4, Timing(gap_ms=6, cycle_ms=50))
    world.run(10000)
    assert len(world.turns) >= 760


# ---- unanswered polls


def test_three_unanswered_polls_then_one_solicit():
    world = World(2)
    world.run(1000)
    world.nodes[1].mute = True
    # From the second second on it is silent; it is not taken for absent so soon.
    world.run(2500)
    kinds = [kind for _, kind, _ in world.turns_of(1, 1000000)]
    assert kinds[:3] == ["poll"] * 3 and kinds[3] == "solicit"
    # The three polls follow each other at once: where nothing was heard a record has waited longest.
    turns = [node for us, _, node in world.turns if us >= world.turns_of(1, 1000000)[0][0]]
    assert turns[:4] == [1, 1, 1, 2]
    places = [number for number, kind in enumerate(kinds) if kind == "solicit"]
    # A SOLICIT is allowed once a second, so some come later, but none earlier than after three polls.
    assert min(_gaps(places)) > 3 and len(places) >= 2


def test_one_solicit_for_three_polls_even_where_more_were_allowed():
    world = World(2)
    world.gateway.solicit_every_ms = 0
    world.run(1000)
    world.nodes[1].mute = True
    world.run(2500)
    kinds = [kind for _, kind, _ in world.turns_of(1, 1000000)]
    assert kinds[:8] == (["poll"] * 3 + ["solicit"]) * 2
    assert kinds.count("solicit") <= len(kinds) // 4 + 1


def test_an_answer_begins_the_count_anew():
    world = World(1)
    world.run(500)
    for _ in range(10):
        world.nodes[1].mute = True
        missed = _figures(world, 1)["unanswered"]
        assert world.run_until(lambda count=missed + 2: _figures(world, 1)["unanswered"] == count, 2000)
        world.nodes[1].mute = False
        world.run(400)
    assert _figures(world, 1)["solicits"] == 0


def test_an_absent_node_costs_little():
    stored = []
    for count in (3, 4):
        world = World(count, backlog=10**6)
        if count == 4:
            world.nodes[4].on = False
        world.run(30000)
        before = world.gateway.stored
        world.run(60000)
        stored.append(world.gateway.stored - before)
    assert world.bus.absent() == [4]
    assert stored[1] >= 0.985 * stored[0], stored
    solicits = [us for us, kind, _ in world.turns_of(4) if kind == "solicit"]
    pauses = [us // 1000 for us in _gaps(solicits)]
    # A pause, then three polls and the next SOLICIT.
    assert [pause // 1000 for pause in pauses[-3:]] == [PAUSES_MS[1] // 1000] * 3, pauses


def test_an_absent_node_is_back_soon():
    world = World(4, backlog=10**6)
    world.nodes[4].on = False
    world.run(60000)
    world.nodes[4].on = True
    world.nodes[4].greeted = False
    assert world.run_until(lambda: not world.bus.absent(), PAUSES_MS[1] + 1500)
    assert world.run_until(lambda: world.nodes[4].backlog < 10**6, 1000)
    # It has its full share again.
    since = world.now_us
    world.run(10000)
    turns = [len(world.turns_of(number, since)) for number in world.nodes]
    assert max(turns) - min(turns) <= 1 and min(turns) > 10


def test_a_lossy_node_is_not_taken_for_absent_at_once():
    world = World(5)
    world.run(500)
    world.nodes[2].mute = True
    world.run(ABSENT_MS - 500)
    assert _figures(world, 2)["unanswered"] >= ABSENT_TURNS and world.bus.absent() == []
    world.run(1000)
    assert world.bus.absent() == [2]


# ---- HELLO


def test_a_node_that_was_never_greeted_is_solicited_and_answered_at_once():
    world = World(3)
    for node in world.nodes.values():
        node.greeted = False
        node.backlog = 5
    world.gateway.known = {}
    world.run(900)
    for number in world.nodes:
        turns = world.turns_of(number)
        assert [kind for _, kind, _ in turns[:2]] == ["solicit", "poll"], turns
        # Nobody else has a turn between the HELLO and its answer, which goes out with the first poll.
        place = world.turns.index(turns[0])
        assert world.turns[place + 1] == turns[1]
        assert turns[1][0] - turns[0][0] < (SOLICIT + 6 + 36) * BYTE_US + 4000 + TURN_US + 3 * ROUNDING_US
    assert world.gateway.stored == 15


def test_nodes_that_are_gone_cost_one_solicit_in_a_pause():
    world = World(3)
    world.gateway.known = {}
    for node in world.nodes.values():
        node.on = False
    world.run(60000)
    turns = len(world.turns)
    world.run(30000)
    assert all([kind == "solicit" for _, kind, _ in world.turns])
    assert 6 <= len(world.turns) - turns <= 12


def test_the_answer_to_hello_goes_out_once_with_each_poll():
    gateway = World(1).gateway
    gateway.known = {}
    sent = []
    bus = PollBus(gateway, Timing())
    gateway.world.bus = bus
    assert bus.step(0)[0][0] & 15 == _frame.SOLICIT
    bus.sent(3)
    bus.heard_bytes(8)
    gateway.take(1, _frame.HELLO, False)
    for now_ms in range(9, 200):
        frames = bus.step(now_ms)
        if frames:
            bus.sent(now_ms)
            sent.append([frame[0] & 15 for frame in frames])
    # Repeated, as the gateway says, until a sealed frame comes; the copy of the hub does not double it.
    assert len(sent) > 1 and all([kinds == [_frame.HELLO, _frame.ACK] for kinds in sent])


def test_an_answer_that_waits_for_its_commit_goes_out_after_it():
    gateway = World(3).gateway
    bus = PollBus(gateway, Timing())
    gateway.known[2] = "greeted"
    gateway.pending = {1: 0, 2: 0, 3: 0}
    assert bus.step(0) == []
    bus.reply(2, down(_frame.HELLO, 2, 48), 5)
    assert bus.step(6) == []
    gateway.pending = {}
    for node in (1, 2, 3):
        bus.ready(node)
    assert bus.wait_ms(7) == 0
    # It goes first: the node's challenge does not live long.
    frames = bus.step(7)
    assert [frame[0] & 15 for frame in frames] == [_frame.HELLO, _frame.ACK] and frames[0][2] == 2


# ---- the ring


def test_nodes_come_and_go():
    world = World(3)
    world.run(1000)
    world.gateway.nodes = [2, 3]
    world.run(1100)
    since = world.now_us
    world.run(1000)
    assert not world.turns_of(1, since) and len(world.turns_of(2, since)) >= 9
    assert [found["node"] for found in world.bus.figures(0)] == [2, 3]
    polls = _figures(world, 2)["polls"]
    world.gateway.nodes = [1, 2, 3]
    world.run(2200)
    assert len(world.turns_of(1, since)) >= 9 and _figures(world, 2)["polls"] > polls
    world.gateway.nodes = []
    world.run(1100)
    since = world.now_us
    world.run(5000)
    assert not [turn for turn in world.turns if turn[0] >= since]


def test_a_reopened_line_begins_with_a_new_turn():
    gateway = World(2).gateway
    bus = PollBus(gateway, Timing())
    assert bus.step(0)
    # The line broke before the frames were sent: without `sent` the turn would stay open.
    assert bus.step(5000) == [] and not bus.free
    bus.reset()
    assert bus.free and bus.step(5001)


# ---- what the rules are for


def test_goodput_with_fakes_is_that_of_the_study():
    for loss, least in ((0.0, 7700), (0.05, 7100), (0.3, 4800), (0.6, 2100)):
        world = World(20, seed=5, backlog=10**6)
        world.loss = loss
        world.run(20000)
        rate = world.gateway.stored * 66 / 20
        assert rate >= 0.97 * least and world.hits == 0, "loss %s: %d bytes/s" % (loss, rate)


def test_fifty_nodes_on_a_bad_line_are_heard_in_time():
    world = World(50, seed=5)
    world.loss = 0.3
    world.run(3000)

    def create(number):
        node = world.nodes[number]
        node.backlog += 1
        node.made_us.append(world.now_us)
        world.at(world.now_us + 12000000, create, number)

    for number in world.nodes:
        world.at(world.now_us + random.randrange(12000000), create, number)
    world.run(40000)
    waits = sorted(world.gateway.latencies)
    assert len(waits) >= 140 and world.hits == 0
    assert waits[len(waits) * 95 // 100] < 4000000, waits[-10:]
