"""Each driver against the model of its device, in virtual time: good air, and each way of going wrong."""

try:
    from models import bme280 as bme280_model
    from models import pms5003 as pms5003_model
except ImportError:
    from simpang.rig.models import bme280 as bme280_model
    from simpang.rig.models import pms5003 as pms5003_model

from sensors.base import FAULTY, OFF, OK, SILENT, WARMING_UP
from sensors.registry import KINDS

ENODEV = 19


class Air:
    """A calm morning beside a road in Semarang."""

    def __init__(self):
        self.pm1 = 24.4
        self.pm25 = 38.25
        self.pm10 = 52.6
        self.temperature = 29.37
        self.humidity = 81.3
        self.pressure = 1009.4


class Uart:
    """A machine.UART at whose other end the model sits; bytes over 256 are lost, as on an ESP32."""

    def __init__(self, model):
        self.model = model
        self.now_ms = 0
        self.waiting = b""

    def any(self):
        return len(self.waiting)

    def read(self, nbytes):
        data, self.waiting = self.waiting[:nbytes], self.waiting[nbytes:]
        return data or None

    def write(self, data):
        self.model.feed(data, self.now_ms)
        return len(data)

    def pull(self, now_ms):
        """Let the device send what is due. Returns when it wants to be asked again."""
        self.now_ms = now_ms
        data, next_ms = self.model.poll(now_ms)
        self.waiting = (self.waiting + data)[:256]
        return next_ms


class I2c:
    """A machine.I2C with models on it."""

    def __init__(self, *models):
        self.models = models
        self.now_ms = 0

    def _find(self, address):
        for model in self.models:
            if address == model.ADDRESS and not model.silent:
                return model
        raise OSError(ENODEV)

    def readfrom_mem(self, address, register, nbytes):
        model = self._find(address)
        model.write(bytes((register,)), self.now_ms)
        return model.read(nbytes, self.now_ms)

    def writeto_mem(self, address, register, data):
        self._find(address).write(bytes((register,)) + data, self.now_ms)


class Bench:
    """One driver and one model with a clock of their own."""

    def __init__(self, kind, seed=1, **options):
        self.air = Air()
        self.now_ms = 0
        if kind == "pms5003":
            self.model = pms5003_model.Pms5003(self.air, seed)
            self.bus = Uart(self.model)
            self.bus.pull(0)
        else:
            self.model = bme280_model.Bme280(self.air, seed)
            self.bus = I2c(self.model)
        self.driver = KINDS[kind](self.bus, options)
        self.driver.start(0)

    def run_s(self, seconds):
        """Let `seconds` pass; the driver is called when it asked to be, the device when it is due."""
        end_ms = self.now_ms + int(seconds * 1000)
        device_ms = driver_ms = self.now_ms
        while self.now_ms < end_ms:
            self.bus.now_ms = self.now_ms
            if isinstance(self.bus, Uart) and self.now_ms >= device_ms:
                device_ms = self.bus.pull(self.now_ms)
            if self.now_ms >= driver_ms:
                driver_ms = self.now_ms + max(1, self.driver.step(self.now_ms))
            upcoming = driver_ms
            if isinstance(self.bus, Uart):
                upcoming = min(upcoming, device_ms)
            self.now_ms = min(max(upcoming, self.now_ms + 1), end_ms)
        return self

    def take(self):
        return self.driver.take(self.now_ms)


def near(values, wanted, allowed):
    for value, want, off in zip(values, wanted, allowed):
        assert value is not None and abs(value - want) <= off, (values, wanted)


def pms_ready(**options):
    bench = Bench("pms5003", **options)
    bench.run_s(35)
    bench.take()
    assert bench.driver.state == OK
    return bench


def bme_ready(**options):
    bench = Bench("bme280", **options)
    bench.run_s(3)
    bench.take()
    assert bench.driver.state == OK
    return bench


def test_pms5003_gives_the_air_of_the_world():
    bench = pms_ready()
    bench.run_s(600)
    near(bench.take(), (244, 382, 526), (2, 2, 2))
    assert bench.driver.faults == {"checksum": 0, "range": 0, "order": 0, "frozen": 0, "silent": 0, "bus": 0}


def test_pms5003_gives_nothing_while_readings_settle():
    bench = Bench("pms5003")
    bench.run_s(29)
    assert bench.driver.state == WARMING_UP
    assert bench.take() == [None, None, None]
    bench.run_s(60)
    near(bench.take(), (244, 382, 526), (10, 10, 10))


def test_pms5003_without_a_warm_up_would_be_wrong():
    bench = Bench("pms5003", warmup_s=0)
    bench.run_s(15)
    assert bench.take()[1] < 300


def test_pms5003_follows_the_world():
    bench = pms_ready()
    bench.air.pm1, bench.air.pm25, bench.air.pm10 = 80.0, 155.0, 210.0
    bench.run_s(5)
    bench.take()
    bench.run_s(300)
    near(bench.take(), (800, 1550, 2100), (3, 3, 3))


def test_pms5003_sends_faster_while_the_air_changes():
    bench = Bench("pms5003")
    bench.run_s(40)
    model = bench.model
    sent = []
    now_ms = bench.now_ms
    for n in range(20):
        bench.air.pm25 = 30.0 + 15 * (n % 2)
        _, next_ms = model.poll(now_ms)
        sent.append(next_ms - now_ms)
        now_ms = next_ms
    assert all(200 <= pause <= 800 for pause in sent[3:])


def test_pms5003_garbled_frames_are_refused_and_counted():
    bench = pms_ready()
    bench.model.garble = True
    bench.run_s(60)
    assert bench.take() == [None, None, None]
    assert bench.driver.state == FAULTY
    assert bench.driver.faults["checksum"] >= 20
    bench.model.garble = False
    bench.run_s(45)
    assert bench.driver.state == OK


def test_pms5003_nonsense_is_refused_and_counted():
    bench = pms_ready()
    bench.model.nonsense = True
    bench.run_s(60)
    assert bench.take() == [None, None, None]
    assert bench.driver.state == FAULTY
    assert bench.driver.faults["range"] >= 5
    assert bench.driver.faults["order"] >= 5
    bench.model.nonsense = False
    bench.run_s(10)
    assert bench.driver.state == OK


def test_pms5003_frozen_is_noticed():
    bench = pms_ready(frozen_frames=20)
    bench.model.frozen = True
    bench.run_s(60)
    assert bench.driver.state == FAULTY
    assert bench.driver.faults["frozen"] > 0
    bench.take()
    bench.run_s(60)
    assert bench.take() == [None, None, None]
    bench.model.frozen = False
    bench.run_s(10)
    assert bench.driver.state == OK


def test_pms5003_steady_clean_air_is_not_frozen():
    bench = pms_ready(frozen_frames=20)
    bench.air.pm1 = bench.air.pm25 = bench.air.pm10 = 0.0
    bench.run_s(3600)
    assert bench.take()[0] is not None
    assert bench.driver.faults["frozen"] == 0


def test_pms5003_silent_and_back():
    bench = pms_ready()
    bench.model.silent = True
    bench.run_s(120)
    assert bench.driver.state == SILENT
    assert bench.take() == [None, None, None]
    bench.model.silent = False
    bench.run_s(5)
    assert bench.driver.state == WARMING_UP
    bench.run_s(60)
    assert bench.driver.state == OK
    near(bench.take(), (244, 382, 526), (10, 10, 10))


def test_pms5003_power_loss_gives_a_new_warm_up():
    bench = pms_ready()
    bench.model.silent = True
    bench.run_s(20)
    bench.take()
    bench.model.silent = False
    bench.model.power_cycle(bench.now_ms)
    bench.run_s(90)
    near(bench.take(), (244, 382, 526), (10, 10, 10))


def test_pms5003_left_asleep_in_passive_mode_is_found_awake_and_active():
    bench = Bench("pms5003")
    bench.model.feed(b"\x42\x4d\xe1\x00\x00\x01\x70" + b"\x42\x4d\xe4\x00\x00\x01\x73", 0)
    assert not bench.model.awake
    bench.driver.start(0)
    bench.run_s(90)
    assert bench.driver.state == OK
    near(bench.take(), (244, 382, 526), (10, 10, 10))


def test_pms5003_sleep_and_wake():
    bench = pms_ready()
    bench.driver.sleep(bench.now_ms)
    assert not bench.model.awake
    bench.run_s(60)
    assert bench.driver.state == OFF
    bench.driver.start(bench.now_ms)
    assert bench.model.awake
    bench.run_s(90)
    near(bench.take(), (244, 382, 526), (10, 10, 10))


def test_pms5003_hollow_frames_after_waking_are_refused_even_without_a_warm_up():
    bench = pms_ready(warmup_s=0)
    bench.model.settle_ms = 0
    bench.driver.sleep(bench.now_ms)
    bench.driver.start(bench.now_ms)
    bench.run_s(5)
    assert bench.take() == [None, None, None]
    assert bench.driver.faults["order"] >= 1


def test_pms5003_model_answers_commands():
    model = pms5003_model.Pms5003(Air())
    model.feed(b"\x42\x4d\xe1\x00\x00\x01\x70", 0)
    assert model.poll(0)[0] == b"\x42\x4d\x00\x04\xe1\x00\x01\x74"
    assert model.poll(10_000)[0] == b""
    model.feed(b"\x42\x4d\xe2\x00\x00\x01\x71", 10_000)
    zeros = model.poll(10_000)[0]
    assert len(zeros) == 32 and sum(zeros[4:28]) == 0  # the first frame after a change of mode
    model.feed(b"\x42\x4d\xe2\x00\x00\x01\x71", 11_000)
    assert sum(model.poll(11_000)[0][4:28]) > 0
    model.feed(b"\x42\x4d\xe1\x00\x01\x01\x71", 12_000)
    assert model.poll(12_000)[0][:8] == b"\x42\x4d\x00\x04\xe1\x01\x01\x75"
    model.feed(b"\x42\x4d\xe4\x00\x00\x01\x72", 13_000)  # wrong checksum
    assert model.awake
    model.feed(b"noise\x42\x42\x4d\xe4\x00\x00\x01\x73", 13_000)
    assert not model.awake
    assert model.poll(13_000)[0] == b"\x42\x4d\x00\x04\xe4\x00\x01\x77"


def test_pms5003_model_repeats_itself_with_the_same_seed():
    def frames(seed):
        model = pms5003_model.Pms5003(Air(), seed)
        return [model.poll(2300 * n)[0] for n in range(20)]

    assert frames(7) == frames(7)
    assert frames(7) != frames(8)


def test_bme280_gives_the_air_of_the_world():
    bench = bme_ready()
    bench.run_s(60)
    near(bench.take(), (2937, 813, 10094), (1, 1, 1))
    assert bench.driver.faults == {"id": 0, "bus": 0, "range": 0, "silent": 0}


def test_bme280_gives_the_air_of_the_world_over_its_whole_range():
    bench = bme_ready()
    for temperature, humidity, pressure in (
        (-40.0, 5.0, 300.0),
        (-10.5, 99.9, 500.2),
        (0.0, 0.0, 1013.2),
        (25.08, 67.5, 1006.5),
        (41.7, 35.4, 1100.0),
        (85.0, 20.0, 950.0),
    ):
        bench.air.temperature, bench.air.humidity, bench.air.pressure = temperature, humidity, pressure
        bench.run_s(2)
        bench.take()
        bench.run_s(5)
        near(bench.take(), (temperature * 100, humidity * 10, pressure * 10), (1.5, 1.5, 1.5))


def test_bme280_noise_averages_out():
    bench = bme_ready()
    bench.model.noise_lsb = 8
    bench.run_s(600)
    near(bench.take(), (2937, 813, 10094), (2, 2, 2))


def test_bme280_values_beyond_its_range_are_none():
    bench = bme_ready()
    bench.air.temperature = 97.0
    bench.run_s(2)
    bench.take()
    bench.run_s(5)
    assert bench.take() == [None, None, None]
    assert bench.driver.faults["range"] >= 4


def test_bme280_nonsense_is_none():
    bench = bme_ready()
    bench.model.nonsense = True
    bench.run_s(2)
    bench.take()
    bench.run_s(10)
    assert bench.take() == [None, None, None]
    assert bench.driver.state == FAULTY


def test_bme280_power_loss_is_noticed_and_repaired():
    bench = bme_ready()
    bench.model.power_cycle(bench.now_ms)
    bench.run_s(3)
    assert bench.driver.faults["bus"] == 1
    bench.take()
    bench.run_s(10)
    assert bench.driver.state == OK
    near(bench.take(), (2937, 813, 10094), (1, 1, 1))


def test_bme280_power_loss_within_a_measurement_gives_no_false_value():
    for delay_ms in range(0, 40):
        bench = bme_ready(every_ms=100)
        bench.run_s(delay_ms / 1000)
        bench.model.power_cycle(bench.now_ms)
        bench.run_s(3)
        near(bench.take(), (2937, 813, 10094), (1, 1, 1))
        assert bench.driver.faults["range"] == 0


def test_bme280_exchanged_for_another_uses_the_new_calibration():
    bench = bme_ready()
    other = (28307, 26788, 50, 37200, -10500, 3024, 5100, 30, -7, 9900, -10230, 4285, 75, 358, 0, 329, 30, 30)
    replacement = bme280_model.Bme280(bench.air, calibration=other)
    replacement.power_cycle(bench.now_ms)
    bench.bus.models = (replacement,)
    bench.run_s(3)
    bench.take()
    bench.run_s(10)
    near(bench.take(), (2937, 813, 10094), (1, 1, 1))


def test_bme280_silent_and_back():
    bench = bme_ready()
    bench.model.silent = True
    bench.run_s(2)
    bench.take()
    bench.run_s(30)
    assert bench.driver.state == SILENT
    assert bench.take() == [None, None, None]
    bench.model.silent = False
    bench.run_s(60)
    assert bench.driver.state == OK
    near(bench.take(), (2937, 813, 10094), (1, 1, 1))


def test_bme280_that_never_ends_a_measurement_is_faulty():
    bench = bme_ready()
    bench.model.stuck = True
    bench.run_s(10)
    assert bench.driver.state == FAULTY
    bench.model.stuck = False
    bench.run_s(60)
    assert bench.driver.state == OK


def test_bme280_with_another_chip_id_is_refused():
    bench = Bench("bme280")
    bench.model.chip_id = 0x58
    bench.run_s(10)
    assert bench.driver.state == FAULTY
    assert bench.driver.faults["id"] >= 3
    assert bench.take() == [None, None, None]


def test_bme280_model_needs_humidity_switched_on_before_the_measurement():
    model = bme280_model.Bme280(Air())
    model.write(b"\xf4\x25", 0)
    model.write(b"\xf2\x01", 1)
    model.write(b"\xfd", 20)
    assert model.read(2, 20) == b"\x80\x00"
    model.write(b"\xf4\x25", 30)
    model.write(b"\xf3", 31)
    assert model.read(1, 31) == b"\x08"
    model.write(b"\xfd", 50)
    assert model.read(2, 50) != b"\x80\x00"
    model.write(b"\xf3", 51)
    assert model.read(2, 51) == b"\x00\x24"  # done, and asleep again


def test_bme280_model_in_normal_mode_measures_by_itself():
    air = Air()
    model = bme280_model.Bme280(air)
    model.write(b"\xf2\x01\xf5\xa0\xf4\x27", 0)  # one second of standby
    model.write(b"\xf7", 20)
    first = model.read(8, 20)
    air.temperature = 10.0
    model.write(b"\xf7", 900)
    assert model.read(8, 900) == first
    model.write(b"\xf7", 1100)
    assert model.read(8, 1100) != first


def test_bme280_model_delays_a_change_of_mode_until_the_measurement_ends():
    model = bme280_model.Bme280(Air())
    model.write(b"\xf2\x01\xf4\x25", 0)
    model.write(b"\xf4\x00", 2)
    model.write(b"\xf4", 3)
    assert model.read(1, 3) == b"\x25"
    model.write(b"\xf4", 20)
    assert model.read(1, 20) == b"\x00"


def test_bme280_model_reads_no_calibration_while_it_starts():
    model = bme280_model.Bme280(Air())
    model.write(b"\xe0\xb6", 0)
    model.write(b"\x88", 1)
    assert model.read(2, 1) == b"\x00\x00"
    model.write(b"\xf3", 1)
    assert model.read(1, 1) == b"\x01"
    model.write(b"\x88", 3)
    assert model.read(2, 3) == b"\x70\x6b"


def test_bme280_model_inverts_the_example():
    raw = bme280_model.raw_values(bme280_model.CALIBRATION, 25.08247793, 1006.53266776, 67.52424146)
    assert raw == (519888, 415148, 32768)
