"""A workshop tester made of doipclient and udsoncan, which know nothing of Farrier.

    doip_uds_peer.py HOST TCP_PORT UDP_PORT ECU_ADDRESS IMAGE TARGET_VERSION [TLS_FOLDER]

With TLS_FOLDER (ca.pem, tester.pem, tester.key), TCP_PORT is one where TLS is spoken.

Finds the vehicle, reads every VCI field of one ECU, flashes IMAGE into its inactive bank with mistakes on
the way (wrong block counter, repeated block, missing key), activates it, restarts the ECU, confirms, rolls
back. Prints one line of JSON with what it saw; any surprise ends it with a traceback and exit code 1.
"""

import hashlib
import json
import ssl
import sys
import time

import udsoncan
from doipclient import DoIPClient
from doipclient.connectors import DoIPClientUDSConnector
from doipclient.messages import VehicleIdentificationRequest, VehicleIdentificationResponse
from udsoncan import MemoryLocation
from udsoncan.client import Client
from udsoncan.exceptions import NegativeResponseException, TimeoutException

FIELDS = {
    "supplier_code": 0xF18A,
    "hw_part_no": 0xF191,
    "sw_part_no": 0xF188,
    "sw_version": 0xF189,
    "bootloader_ver": 0xF180,
    "calibration_id": 0xF182,
}
ACTIVE_BANK, OTHER_BANK_VERSION, TRIAL_STATE = 0xF1A0, 0xF1A1, 0xF1A2
FINGERPRINT = 0xF184
PRECONDITIONS, ERASE, CHECK_MEMORY, CHECK_DEPENDENCIES = 0x0203, 0xFF00, 0x0202, 0xFF01
ACTIVATE, CONFIRM, ROLL_BACK = 0x0301, 0x0302, 0x0303
EXTENDED, PROGRAMMING = 3, 2
START, HARD_RESET = 1, 1


class Bytes(udsoncan.DidCodec):
    """A data record as it stands on the wire."""

    def encode(self, value):
        return value

    def decode(self, value):
        return value

    def __len__(self):
        raise udsoncan.DidCodec.ReadAllRemainingData


def refusal_of(call):
    """The negative response code of a call that has to be refused."""
    try:
        call()
    except NegativeResponseException as refusal:
        return refusal.response.code
    raise AssertionError("expected a negative response, the ECU agreed")


class Tester:
    def __init__(self, client):
        self.client = client

    def read(self, identifier):
        return self.client.read_data_by_identifier(identifier).service_data.values[identifier]

    def fields(self):
        found = {}
        for name, identifier in FIELDS.items():
            record = self.read(identifier)
            if name in ("bootloader_ver", "calibration_id"):
                assert record[0] == 1, f"{name}: expected one module, found {record!r}"
                record = record[1:]
            found[name] = record.decode("ascii")
        return found

    def running(self):
        return {
            "version": self.read(FIELDS["sw_version"]).decode("ascii"),
            "bank": self.read(ACTIVE_BANK)[0],
            "other_version": self.read(OTHER_BANK_VERSION).rstrip(b"\0").decode("ascii"),
            "trial": self.read(TRIAL_STATE)[0],
        }

    def routine(self, number, data=None):
        status = self.client.routine_control(number, START, data).service_data.routine_status_record
        return status.hex()

    def unlocked_routine(self, number):
        self.client.change_session(EXTENDED)
        self.client.unlock_security_access(0x11)
        return self.routine(number)

    def restart(self):
        self.client.ecu_reset(HARD_RESET)
        # An ECU that restarts is silent; each question to it costs a whole timeout.
        time.sleep(0.5)
        for _ in range(50):
            try:
                return self.running()
            except TimeoutException:
                time.sleep(0.1)
        raise AssertionError("expected the ECU back after its restart")

    def flash(self, image, version):
        """Writes the image; returns what the deliberate mistakes were answered with."""
        client, seen = self.client, {}
        seen["programming_from_default"] = refusal_of(lambda: client.change_session(PROGRAMMING))
        client.change_session(EXTENDED)
        seen["preconditions"] = self.routine(PRECONDITIONS)
        client.change_session(PROGRAMMING)
        whole = MemoryLocation(address=0, memorysize=len(image), address_format=32, memorysize_format=32)
        seen["download_while_locked"] = refusal_of(lambda: client.request_download(whole))
        client.unlock_security_access(0x11)
        client.write_data_by_identifier(FINGERPRINT, version.encode("ascii"))
        seen["erase"] = self.routine(ERASE)
        block = client.request_download(whole).service_data.max_length - 2
        seen["block"] = block
        counter = 0
        for number, start in enumerate(range(0, len(image), block)):
            counter = (counter + 1) & 0xFF
            part = image[start : start + block]
            if number == 1:
                wrong = (counter + 7) & 0xFF
                seen["wrong_counter"] = refusal_of(lambda: client.transfer_data(wrong, part))
            client.transfer_data(counter, part)
            if number == 2:
                # A tester that lost the acknowledgement sends the block again.
                client.transfer_data(counter, part)
                seen["repeated_block"] = "acknowledged"
        seen["blocks"] = number + 1
        client.request_transfer_exit()
        seen["check_wrong_hash"] = self.routine(CHECK_MEMORY, bytes(32))
        seen["check_memory"] = self.routine(CHECK_MEMORY, hashlib.sha256(image).digest())
        seen["check_dependencies"] = self.routine(CHECK_DEPENDENCIES)
        return seen


def find_vehicle(doip):
    doip.send_doip(0x0001, VehicleIdentificationRequest().pack(), transport=DoIPClient.TransportType.TRANSPORT_UDP)
    found = doip.read_doip(timeout=5, transport=DoIPClient.TransportType.TRANSPORT_UDP)
    assert isinstance(found, VehicleIdentificationResponse), f"expected an announcement, found {found!r}"
    return {"vin": found.vin, "logical_address": found.logical_address}


def tls(folder):
    context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
    # doipclient does not pass the name of its peer on; who signed the certificate is verified all the same.
    context.check_hostname = False
    context.load_cert_chain(f"{folder}/tester.pem", f"{folder}/tester.key")
    return context


def conversation(connection, image, version):
    """Reads, flashes, restarts, confirms and rolls back one ECU; says what was seen."""
    config = dict(udsoncan.configs.default_client_config)
    config["security_algo"] = lambda level, seed, params=None: bytes(byte ^ 0xA5 for byte in seed)
    config["data_identifiers"] = {"default": Bytes}
    config["use_server_timing"] = False
    config["request_timeout"] = 20
    config["p2_timeout"] = 3
    config["p2_star_timeout"] = 10
    results = {}
    with Client(connection, config=config) as client:
        tester = Tester(client)
        results["fields"] = tester.fields()
        results["before"] = tester.running()
        results["flash"] = tester.flash(image, version)
        tester.unlocked_routine(ACTIVATE)
        client.control_dtc_setting(2)
        client.communication_control(3, 1)
        results["after_activate"] = tester.running()
        results["after_reset"] = tester.restart()
        tester.unlocked_routine(CONFIRM)
        results["after_confirm"] = tester.running()
        tester.unlocked_routine(ROLL_BACK)
        results["after_roll_back"] = tester.restart()
        with client.suppress_positive_response:
            client.tester_present()
    return results


def main():
    host, tcp_port, udp_port, ecu_address, image_path, version, *tls_folder = sys.argv[1:]
    with open(image_path, "rb") as file:
        image = file.read()
    doip = DoIPClient(
        host,
        int(ecu_address, 0),
        tcp_port=int(tcp_port),
        udp_port=int(udp_port),
        client_logical_address=0x0E81,
        protocol_version=2,
        use_secure=tls(*tls_folder) if tls_folder else False,
    )
    results = {"vehicle": find_vehicle(doip)}
    results |= conversation(DoIPClientUDSConnector(doip), image, version)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
