"""The node's configuration: what is accepted, what it becomes, and where exactly an error is said to be."""

import json

from node.config import MAX_BYTES, ConfigError, keep_link, load
from node.configread import DEFAULTS
from sensors.registry import KINDS

UART1 = {"kind": "uart", "id": 1, "tx": 25, "rx": 26, "baud": 9600}
I2C0 = {"kind": "i2c", "id": 0, "scl": 22, "sda": 21, "freq": 100000}


def full():
    """A configuration with every setting."""
    return {
        "v": 1,
        "link": {"kind": "serial", "uart": 2, "tx": 17, "rx": 16, "baud": 115200},
        "buses": {"uart1": dict(UART1), "i2c0": dict(I2C0)},
        "sensors": [
            {"kind": "pms5003", "bus": "uart1", "warmup_s": 45},
            {"kind": "bme280", "bus": "i2c0", "address": 119},
        ],
        "record": {"interval_s": 20, "batch": 6, "latency_s": 90},
        "health_s": 600,
        "journal_kb": 512,
        "watchdog_s": 60,
        "led": 13,
    }


def refused(table):
    """The error of a configuration that must not be accepted."""
    try:
        load(table if isinstance(table, (str, bytes)) else json.dumps(table))
    except ConfigError as error:
        assert str(error) == "%s: %s. Next: %s." % (error.path, error.problem, error.next_step)
        assert error.path and error.problem and error.next_step
        assert "\n" not in str(error)
        return error
    raise AssertionError("accepted: %r" % (table,))


def changed(path, value):
    """The full configuration with one place changed; `path` is a list of keys and indexes."""
    table = full()
    place = table
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return table


def test_every_setting_arrives():
    config = load(json.dumps(full()))
    link = config.link
    assert (link.kind, link.uart, link.tx, link.rx, link.baud) == ("serial", 2, 17, 16, 115200)
    uart, i2c = config.buses["uart1"], config.buses["i2c0"]
    assert (uart.name, uart.kind, uart.id, uart.tx, uart.rx, uart.baud) == ("uart1", "uart", 1, 25, 26, 9600)
    assert (i2c.name, i2c.kind, i2c.id, i2c.scl, i2c.sda, i2c.freq) == ("i2c0", "i2c", 0, 22, 21, 100000)
    pms, bme = config.sensors
    assert (pms.kind, pms.bus, pms.options["warmup_s"], pms.options["silent_s"]) == (
        "pms5003",
        "uart1",
        45,
        10,
    )
    assert (bme.kind, bme.bus, bme.options["address"]) == ("bme280", "i2c0", 119)
    assert pms.driver is KINDS["pms5003"]
    record = config.record
    assert (record.interval_ms, record.period_s, record.batch, record.latency_s) == (20000, 20, 6, 90)
    assert (config.health_s, config.journal_kb, config.watchdog_s, config.led) == (600, 512, 60, 13)


def test_what_is_left_out_takes_its_default():
    config = load('{"v": 1}')
    assert (config.link.uart, config.link.tx, config.link.rx, config.link.baud) == (2, 17, 16, 115200)
    assert config.buses == {}
    assert config.sensors == []
    record = config.record
    assert (record.interval_ms, record.period_s, record.batch, record.latency_s) == (10000, 10, 12, 120)
    assert (config.health_s, config.journal_kb, config.watchdog_s, config.led) == (300, 256, 30, None)


def test_the_skeleton_of_the_design_is_valid():
    text = b'{"v":1,"link":{},"buses":{},"sensors":[],"record":{"batch":12,"latency_s":120},"health_s":300}'
    assert load(text).record.batch == 12
    assert load(bytearray(text)).health_s == 300


def test_default_pins_of_all_units_do_not_meet():
    config = load(
        json.dumps(
            {
                "v": 1,
                "buses": {
                    "a": {"kind": "uart", "id": 1},
                    "b": {"kind": "i2c", "id": 0},
                    "c": {"kind": "i2c", "id": 1},
                },
            }
        )
    )
    assert (config.buses["a"].tx, config.buses["a"].rx, config.buses["a"].baud) == (25, 26, 9600)
    assert (config.buses["b"].scl, config.buses["b"].sda, config.buses["b"].freq) == (22, 21, 100000)
    assert (config.buses["c"].scl, config.buses["c"].sda) == (33, 32)


def test_unknown_settings_are_refused_with_their_place():
    for path, where in (
        (["heath_s"], "heath_s"),
        (["link", "speed"], "link.speed"),
        (["buses", "uart1", "sda"], "buses.uart1.sda"),
        (["buses", "i2c0", "baud"], "buses.i2c0.baud"),
        (["sensors", 0, "address"], "sensors[0].address"),
        (["sensors", 1, "warmup_s"], "sensors[1].warmup_s"),
        (["record", "latency"], "record.latency"),
    ):
        error = refused(changed(path, 1))
        assert error.path == where, error
        assert "use one of: " in error.next_step


def test_numbers_out_of_range_are_refused_with_their_place():
    for path, where, low, high in (
        (["link", "uart"], "link.uart", 0, 2),
        (["link", "baud"], "link.baud", 9600, 921600),
        (["buses", "uart1", "id"], "buses.uart1.id", 1, 2),
        (["buses", "i2c0", "id"], "buses.i2c0.id", 0, 1),
        (["buses", "i2c0", "freq"], "buses.i2c0.freq", 10000, 400000),
        (["sensors", 0, "warmup_s"], "sensors[0].warmup_s", 0, 600),
        (["sensors", 1, "address"], "sensors[1].address", 118, 119),
        (["record", "batch"], "record.batch", 1, 32),
        (["record", "latency_s"], "record.latency_s", 1, 3600),
        (["health_s"], "health_s", 5, 86400),
        (["journal_kb"], "journal_kb", 16, 1024),
        (["watchdog_s"], "watchdog_s", 5, 120),
    ):
        for value in (low - 1, high + 1, True, 1.5, "10", [], {}, -(2**40)):
            error = refused(changed(path, value))
            assert error.path == where, (error, value)
            assert str(low) in error.problem and str(high) in error.problem
    for path, low, high in ((["health_s"], 5, 86400), (["record", "batch"], 1, 32), (["watchdog_s"], 5, 120)):
        load(json.dumps(changed(path, low)))
        load(json.dumps(changed(path, high)))


def test_wrong_shapes_are_refused():
    for path, value, where in (
        (["link"], [], "link"),
        (["link"], None, "link"),
        (["buses"], 3, "buses"),
        (["buses", "uart1"], "x", "buses.uart1"),
        (["sensors"], {}, "sensors"),
        (["sensors"], [{}] * 9, "sensors"),
        (["sensors", 0], "pms5003", "sensors[0]"),
        (["record"], "", "record"),
        (["link", "kind"], "lora", "link.kind"),
        (["buses", "uart1", "kind"], "spi", "buses.uart1.kind"),
        (["sensors", 0, "kind"], "pms9999", "sensors[0].kind"),
        (["sensors", 0, "kind"], ["pms5003"], "sensors[0].kind"),
        (["sensors", 0, "bus"], "uart9", "sensors[0].bus"),
    ):
        assert refused(changed(path, value)).path == where


def test_text_that_is_no_configuration_is_refused():
    for text in (
        "",
        "{",
        "[]",
        "1",
        '"x"',
        "null",
        "nonsense",
        b"\xff\xfe",
        '{"v":1}x',
        "[" * 4000,
        '{"v":' * 700,
    ):
        assert refused(text).path == "configuration"
    assert refused('{"v":1,"led":' + " " * MAX_BYTES + "null}").path == "configuration"


def test_version_must_be_1():
    for value in (0, 2, "1", True, None, 1.0):
        assert refused(changed(["v"], value)).path == "v"
    assert refused("{}").path == "v"


def test_strange_names_do_not_break_the_line_of_the_error():
    for name in ("a\nb", "", "x" * 200, "Uart", "ü"):
        table = full()
        table["buses"][name] = dict(I2C0)
        error = refused(table)
        assert error.path.startswith("buses.")
        assert len(str(error)) < 200
        table = full()
        table[name] = 1
        assert len(refused(table).path) <= 42


def test_pins_of_flash_console_and_missing_ones_are_refused():
    for pin in (6, 7, 8, 9, 10, 11, 1, 3, 20, 24, 28, 29, 30, 31, 40, -1):
        assert refused(changed(["buses", "uart1", "tx"], pin)).path == "buses.uart1.tx"
        assert refused(changed(["buses", "uart1", "rx"], pin)).path == "buses.uart1.rx"
        assert refused(changed(["led"], pin)).path == "led"


def test_input_only_pins_can_only_receive():
    for pin in (34, 35, 36, 39):
        for path in (
            ["link", "tx"],
            ["buses", "uart1", "tx"],
            ["buses", "i2c0", "scl"],
            ["buses", "i2c0", "sda"],
            ["led"],
        ):
            assert "input only" in refused(changed(path, pin)).problem
        assert load(json.dumps(changed(["link", "rx"], pin))).link.rx == pin
        assert load(json.dumps(changed(["buses", "uart1", "rx"], pin))).buses["uart1"].rx == pin


def test_strapping_pins_are_allowed():
    for pin in (0, 2, 12, 15):
        assert load(json.dumps(changed(["led"], pin))).led == pin


def test_a_pin_is_used_once():
    error = refused(changed(["buses", "uart1", "rx"], 17))
    assert error.path == "buses.uart1.rx"
    assert error.problem == "GPIO 17 is already used by link.tx"
    assert refused(changed(["led"], 22)).problem == "GPIO 22 is already used by buses.i2c0.scl"
    assert refused(changed(["link", "rx"], 17)).path == "link.rx"


def test_a_unit_is_used_once():
    error = refused(changed(["buses", "uart1", "id"], 2))
    assert error.path == "buses.uart1.id"
    assert "the link" in error.problem
    table = full()
    table["buses"]["other"] = {"kind": "i2c", "id": 0}
    error = refused(table)
    assert error.path == "buses.other.id"
    assert "buses.i2c0" in error.problem


def test_the_link_may_use_the_usb_connector():
    table = full()
    table["link"] = {"uart": 0}
    config = load(json.dumps(table))
    assert (config.link.uart, config.link.tx, config.link.rx) == (0, 1, 3)
    table["link"] = {"uart": 0, "tx": 4}
    assert refused(table).path == "link.tx"


def test_a_sensor_must_fit_its_bus():
    error = refused(changed(["sensors", 0, "bus"], "i2c0"))
    assert error.path == "sensors[0].bus"
    assert "needs uart" in error.problem
    error = refused(changed(["buses", "uart1", "baud"], 19200))
    assert error.path == "buses.uart1.baud"
    assert error.next_step == "write 9600"


def test_two_sensors_cannot_share_a_uart_or_an_address():
    table = full()
    table["sensors"].append({"kind": "pms5003", "bus": "uart1"})
    assert refused(table).path == "sensors[2].bus"
    table = full()
    table["sensors"].append({"kind": "bme280", "bus": "i2c0", "address": 119})
    assert refused(table).path == "sensors[2].address"


def test_two_sensors_cannot_measure_the_same():
    table = full()
    table["sensors"].append({"kind": "bme280", "bus": "i2c0", "address": 118})
    error = refused(table)
    assert error.path == "sensors[2].kind"
    assert error.problem == "temperature is already measured by sensors[1]"


def test_a_sensor_without_any_bus_is_told_to_add_one():
    error = refused({"v": 1, "sensors": [{"kind": "bme280", "bus": "i2c0"}]})
    assert error.path == "sensors[0].bus"
    assert error.next_step == "add a bus to buses"
    assert refused({"v": 1, "sensors": [{"kind": "bme280"}]}).problem == "is missing"


def test_intervals_are_those_that_a_record_can_state():
    for interval_s in (1, 2, 60, 127, 180, 600, 7620):
        config = load(json.dumps(changed(["record", "interval_s"], interval_s)))
        assert (config.record.interval_ms, config.record.period_s) == (interval_s * 1000, interval_s)
    for interval_s in (0, 128, 150, 7621, 7680):
        assert refused(changed(["record", "interval_s"], interval_s)).path == "record.interval_s"


def test_moments_have_no_period_and_no_batch():
    for interval_ms in (10, 500, 999):
        config = load(json.dumps(changed(["record"], {"interval_ms": interval_ms})))
        record = config.record
        assert (record.interval_ms, record.period_s, record.batch) == (interval_ms, 0, 1)
    load(json.dumps(changed(["record"], {"interval_ms": 10, "batch": 1})))
    assert refused(changed(["record"], {"interval_ms": 10, "batch": 2})).path == "record.batch"
    for interval_ms in (9, 1000, None):
        assert refused(changed(["record"], {"interval_ms": interval_ms})).path == "record.interval_ms"
    assert refused(changed(["record"], {"interval_ms": 10, "interval_s": 1})).path == "record.interval_ms"


def test_a_radio_takes_no_uart_and_has_a_channel():
    link = load('{"v":1,"link":{"kind":"espnow"}}').link
    assert (link.kind, link.channel, link.bridge) == ("espnow", 0, None)
    given = {"kind": "espnow", "channel": 13, "bridge": "24:0a:C4:12:34:56"}
    buses = {"a": {"kind": "uart", "id": 2}, "b": {"kind": "uart", "id": 1}}
    config = load(json.dumps({"v": 1, "link": given, "buses": buses}))
    assert (config.link.channel, config.link.bridge) == (13, bytes.fromhex("240ac4123456"))
    assert (config.buses["a"].tx, config.buses["a"].rx) == (17, 16)
    for key, value, problem in (
        ("channel", 14, "is 14, not a whole number from 0 to 13"),
        ("channel", -1, "is -1, not a whole number from 0 to 13"),
        ("bridge", 7, "is 7, not the address of a radio"),
        ("bridge", "24:0a:c4:12:34", 'is "24:0a:c4:12:34", not the address of a radio'),
        ("bridge", "24:0a:c4:12:34:5", 'is "24:0a:c4:12:34:5", not the address of a radio'),
        ("bridge", "24:0a:c4:12:34:-1", 'is "24:0a:c4:12:34:-1", not the address of a radio'),
        ("bridge", "24-0a-c4-12-34-56", 'is "24-0a-c4-12-34-56", not the address of a radio'),
        ("bridge", "ff:ff:ff:ff:ff:ff", 'is "ff:ff:ff:ff:ff:ff", not the address of a radio'),
        ("uart", 2, "is not a setting"),
        ("baud", 9600, "is not a setting"),
    ):
        table = {"v": 1, "link": {"kind": "espnow", key: value}}
        error = refused(table)
        assert (error.path, error.problem) == ("link." + key, problem)
    # And a line has none of a radio's settings.
    assert refused({"v": 1, "link": {"channel": 3}}).path == "link.channel"


def test_the_error_says_place_problem_and_next_step():
    error = refused(changed(["sensors", 1, "address"], 80))
    assert str(error) == (
        "sensors[1].address: is 80, not a whole number from 118 to 119. "
        "Next: write a number in that range, or leave it out for 118."
    )


def test_defaults_lie_within_their_ranges():
    for name in DEFAULTS:
        default, low, high = DEFAULTS[name]
        assert default is None or low <= default <= high, name
    for kind in KINDS:
        options = KINDS[kind].OPTIONS
        for name in options:
            default, low, high = options[name]
            assert low <= default <= high, (kind, name)


# ---- deep sleep, several records a frame


def test_sleep_is_off_unless_it_is_asked_for():
    assert load('{"v":1}').sleep is None and load('{"v":1,"sleep":null}').sleep is None
    config = load('{"v":1,"sleep":{},"record":{"interval_s":60}}')
    assert (config.sleep.awake_s, config.sleep.lead_s) == (10, 1)
    # Each sample of a node that sleeps is a moment.
    record = config.record
    assert (record.interval_ms, record.period_s, record.batch) == (60000, 0, 1)
    config = load('{"v":1,"sleep":{"awake_s":3}}')
    assert (config.sleep.awake_s, config.record.interval_ms) == (3, 10000)


def test_sleep_ends_early_enough_for_the_slowest_sensor():
    table = full()
    table["record"] = {"interval_s": 50}
    table["sleep"] = {}
    assert load(json.dumps(table)).sleep.lead_s == 1 + 45 + 3
    table["record"] = {"interval_s": 49}
    error = refused(table)
    assert (error.path, error.problem) == (
        "record.interval_s",
        "is too short for sleep: each sample needs 49 s before it",
    )
    del table["sensors"][0]
    assert load(json.dumps(table)).sleep.lead_s == 1 + 3


def test_what_does_not_go_with_sleep_is_named():
    minute = {"interval_s": 60}
    for table, path in (
        ({"sleep": {"awake_s": 0}}, "sleep.awake_s"),
        ({"sleep": {"after_s": 5}}, "sleep.after_s"),
        ({"sleep": True}, "sleep"),
        ({"sleep": {}, "record": {"interval_s": 60, "batch": 2}}, "record.batch"),
        ({"sleep": {}, "record": {"interval_ms": 500}}, "record.interval_s"),
        ({"sleep": {}, "record": {"interval_s": 1}}, "record.interval_s"),
        ({"sleep": {}, "record": minute, "link": {"kind": "rs485"}}, "sleep"),
        ({"sleep": {}, "record": minute, "link": {"kind": "espnow"}}, "sleep"),
    ):
        assert refused(dict(table, v=1)).path == path, table
    assert load('{"v":1,"sleep":{},"link":{"kind":"espnow","channel":6}}').sleep.awake_s == 10


def test_frames_carry_several_records_but_on_a_bus():
    for kind, multi in (("serial", True), ("espnow", True), ("rs485", False)):
        assert load(json.dumps({"v": 1, "link": {"kind": kind}})).link.multi is multi
        given = {"v": 1, "link": {"kind": kind, "multi": not multi}}
        assert load(json.dumps(given)).link.multi is not multi
        given["link"]["multi"] = 1
        error = refused(given)
        assert (error.path, error.problem) == ("link.multi", "is 1, not true or false")


# ---- RS-485


def test_a_bus_has_a_pin_for_its_transmitter():
    link = load('{"v":1,"link":{"kind":"rs485"}}').link
    assert (link.kind, link.uart, link.tx, link.rx, link.baud) == ("rs485", 2, 17, 16, 115200)
    assert (link.de, link.de_invert) == (None, False)
    link = load('{"v":1,"link":{"kind":"rs485","uart":1,"baud":9600,"de":4,"de_invert":true}}').link
    assert (link.uart, link.tx, link.rx, link.baud, link.de, link.de_invert) == (1, 25, 26, 9600, 4, True)


def test_faults_of_a_bus_are_named():
    for key, value, problem in (
        ("de", 34, "GPIO 34 is an input only"),
        ("de", 17, "GPIO 17 is already used by link.tx"),
        ("de", "4", 'is "4", not a whole number from 0 to 39'),
        ("de_invert", 1, "is 1, not true or false"),
        # The console of UART 0 would speak unasked.
        ("uart", 0, "is 0, not a whole number from 1 to 2"),
    ):
        error = refused({"v": 1, "link": {"kind": "rs485", key: value}})
        assert (error.path, error.problem) == ("link." + key, problem)
    error = refused({"v": 1, "link": {"de": 4}})
    assert (error.path, error.problem) == ("link.de", "is not a setting")
    table = {"v": 1, "link": {"kind": "rs485", "de": 4}, "led": 4}
    assert refused(table).problem == "GPIO 4 is already used by link.de"


def test_a_link_that_is_right_outlives_faults_elsewhere():
    broken = {"v": 1, "link": {"kind": "rs485", "de": 4}, "sensors": [{"kind": "none"}]}
    link = keep_link(json.dumps(broken)).link
    assert (link.kind, link.de) == ("rs485", 4)
    for data in ("", "{", "[]", '{"v":1,"link":{"kind":"rs485","de":99}}', '{"v":1,"link":7}'):
        assert keep_link(data).link.kind == "serial"
    assert keep_link(b'{"link":{"baud":9600},"\xff":0}').link.baud == 115200
