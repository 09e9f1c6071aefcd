from types import SimpleNamespace

from workbench.telemetry.sensors import AMDSensors, HostSensors, NVIDIASensors, machine_sensors


def test_the_host_has_memory_and_a_processor():
    numbers = HostSensors().read()
    assert 0 < numbers["host_memory_used_bytes"] < numbers["host_memory_total_bytes"]
    assert numbers["host_cpu_percent"] >= 0


class Driver:
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self):
        pass

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(used=10 + handle, total=80)

    def nvmlDeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=50)

    def nvmlDeviceGetTemperature(self, handle, sensor):
        raise RuntimeError("not supported")

    def nvmlDeviceGetPowerUsage(self, handle):
        return 250_000


def test_nvidia_devices_are_numbered():
    numbers = NVIDIASensors(Driver()).read()
    assert numbers["gpu1_memory_used_bytes"] == 11
    assert numbers["gpu0_load_percent"] == 50
    assert numbers["gpu0_power_watts"] == 250


def test_what_the_driver_keeps_for_itself_is_not_in_use():
    class Newer(Driver):
        nvmlMemory_v2 = 2

        def nvmlDeviceGetMemoryInfo(self, handle, version=None):
            if self.has_call and version == 2:
                return SimpleNamespace(used=0, reserved=616, total=1000)
            assert version is None, "the driver has no such call"
            return SimpleNamespace(used=616, total=1000)

    driver = Newer()
    driver.has_call = True
    assert NVIDIASensors(driver).read()["gpu0_memory_used_bytes"] == 0
    driver.has_call = False
    assert NVIDIASensors(driver).read()["gpu0_memory_used_bytes"] == 616


def test_what_a_device_cannot_tell_is_left_out():
    numbers = NVIDIASensors(Driver()).read()
    assert "gpu0_temperature_celsius" not in numbers


class Library:
    AmdSmiMemoryType = SimpleNamespace(VRAM="vram")
    AmdSmiTemperatureType = SimpleNamespace(EDGE="edge")
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT="now")

    def amdsmi_init(self):
        pass

    def amdsmi_get_processor_handles(self):
        return ["a"]

    def amdsmi_get_gpu_memory_usage(self, handle, kind):
        return 30

    def amdsmi_get_gpu_memory_total(self, handle, kind):
        return 64

    def amdsmi_get_gpu_activity(self, handle):
        return {"gfx_activity": "N/A"}

    def amdsmi_get_temp_metric(self, handle, kind, metric):
        return 55

    def amdsmi_get_power_info(self, handle):
        return {"average_socket_power": 300}


def test_amd_devices_say_the_same():
    numbers = AMDSensors(Library()).read()
    assert numbers["gpu0_memory_used_bytes"] == 30
    assert numbers["gpu0_temperature_celsius"] == 55
    assert "gpu0_load_percent" not in numbers


def test_a_machine_without_gpus_still_has_a_host():
    assert isinstance(machine_sensors()[0], HostSensors)
