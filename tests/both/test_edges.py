"""Edges of a contact: kept in order with their times, bounded, and right across a wrap of the clock."""

from pinkit import Gpio
from sensors.edges import Edges


def test_edges_are_told_once_in_order_with_their_times():
    gpio = Gpio()
    edges = Edges(gpio.pin(4), 8)
    for at_ms, level in ((10, 0), (35, 1), (90, 0)):
        gpio.now_ms = at_ms
        gpio.pin(4).drive(level)
    gpio.now_ms = 100
    assert edges.read(100) == [(10, 0), (35, 1), (90, 0)]
    assert edges.read(100) == []
    assert edges.level == 0 and edges.lost == 0


def test_times_hold_across_the_wrap_of_the_ticks_and_on_another_clock():
    gpio = Gpio(start_ticks=(1 << 30) - 50)
    edges = Edges(gpio.pin(4), 8)
    # The clock of the application began somewhere else.
    assert edges.read(7000) == []
    gpio.now_ms = 30
    gpio.pin(4).drive(0)
    gpio.now_ms = 80
    gpio.pin(4).drive(1)
    gpio.now_ms = 100
    assert edges.read(7100) == [(7030, 0), (7080, 1)]


def test_a_late_reader_tells_the_same_times():
    gpio = Gpio()
    edges = Edges(gpio.pin(4), 8)
    edges.read(0)
    gpio.now_ms = 50
    gpio.pin(4).drive(0)
    # A collection of garbage of 20 ms between asking for the time and reading.
    gpio.now_ms = 120
    assert edges.read(100) == [(50, 0)]
    gpio.now_ms = 130
    gpio.pin(4).drive(1)
    gpio.now_ms = 140
    assert edges.read(125) == [(125, 1)]  # never later than now


def test_a_full_ring_counts_what_it_loses_and_ends_with_the_level_of_now():
    gpio = Gpio()
    edges = Edges(gpio.pin(4), 4)
    for number in range(8):
        gpio.now_ms = 10 * number
        gpio.pin(4).drive(number % 2)
    assert edges.lost == 5  # of eight
    gpio.now_ms = 80
    assert edges.read(80) == [(0, 0), (10, 1), (20, 0), (80, 1)]
    gpio.pin(4).drive(0)
    assert edges.read(80) == [(80, 0)]
    assert edges.lost == 5


def test_an_edge_that_was_missed_shows_as_the_level_of_now():
    gpio = Gpio()
    edges = Edges(gpio.pin(4), 8)
    gpio.pin(4).level = 0  # no interrupt came
    assert edges.read(300) == [(300, 0)]
    # It comes after all: no second edge.
    gpio.pin(4).handler(gpio.pin(4))
    assert edges.read(310) == []


def test_edges_whose_handler_came_late_are_one_level():
    gpio = Gpio()
    edges = Edges(gpio.pin(4), 8)
    pin = gpio.pin(4)
    pin.level = 0
    pin.handler(pin)
    pin.handler(pin)
    gpio.now_ms = 5
    assert edges.read(5) == [(0, 0)]


def test_closed_edges_hear_nothing():
    gpio = Gpio()
    edges = Edges(gpio.pin(4), 8)
    edges.close()
    gpio.pin(4).drive(0)
    gpio.pin(4).drive(1)
    assert edges.read(1) == []
