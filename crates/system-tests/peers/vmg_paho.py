#!/usr/bin/env python3
"""A gateway written against docs/protocol.md alone, on paho-mqtt and Python's own TLS and HTTP.

It shares no code with Farrier: where the two disagree, one of them has read the protocol wrongly. Its ECUs are a
dictionary of versions. It plays one whole update and ends with exit code 0 once it has reported the commit and
answered the server's question what it now runs.
"""
import argparse
import hashlib
import http.client
import json
import queue
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from pathlib import Path

import paho.mqtt.client as mqtt

PATIENCE_S = 60


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mqtt", required=True, help="host:port")
    parser.add_argument("--mqtt-version", choices=["5.0", "3.1.1"], required=True)
    parser.add_argument("--vehicle", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--certificates", required=True, type=Path)
    parser.add_argument("--release-public-key", required=True, type=Path)
    return parser.parse_args()


class Vmg:
    def __init__(self, args):
        self.args = args
        self.boot_id = str(uuid.uuid4())
        self.booted = time.monotonic()
        self.commands = queue.Queue()
        self.connected = queue.Queue()
        self.client_id = f"{args.vehicle}_{args.gateway}"
        self.topic = f"ota/{args.vehicle}/{args.gateway}"
        self.ecus = {
            "ecu_001": {"hw_part_no": "HW-0001", "sw_version": "1.0.0", "group": {"domain_zone_bit": 0, "domain": "powertrain", "index": 1}},
            "ecu_002": {"hw_part_no": "HW-0002", "sw_version": "1.0.0", "group": {"domain_zone_bit": 1, "zone": "front_left", "index": 1}},
        }
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self.tls.load_verify_locations(args.certificates / "ca.pem")
        self.tls.load_cert_chain(args.certificates / "cert.pem", args.certificates / "key.pem")

    # -- MQTT ---------------------------------------------------------------------------------------------

    def connect(self):
        is_5 = self.args.mqtt_version == "5.0"
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=mqtt.MQTTv5 if is_5 else mqtt.MQTTv311,
            **({} if is_5 else {"clean_session": True}),
        )
        self.client.tls_set_context(self.tls)
        self.client.on_connect = lambda _c, _u, _flags, reason, _p: self.connected.put(reason)
        self.client.on_message = lambda _c, _u, message: self.commands.put(message.payload)
        host, port = self.args.mqtt.rsplit(":", 1)
        options = {"clean_start": True} if is_5 else {}
        self.client.connect(host, int(port), keepalive=60, **options)
        self.client.loop_start()
        reason = self.connected.get(timeout=PATIENCE_S)
        assert not reason.is_failure, f"CONNACK: {reason}"
        granted = queue.Queue()
        self.client.on_subscribe = lambda _c, _u, _mid, reasons, _p: granted.put(reasons)
        self.client.subscribe(f"{self.topic}/down", qos=1)
        reasons = granted.get(timeout=PATIENCE_S)
        assert not any(code.is_failure for code in reasons), f"SUBACK: {reasons}"

    def send(self, topic, message_type, **fields):
        message = {
            "msg_id": f"VMG-{uuid.uuid4()}",
            "proto_ver": "1.0",
            "type": message_type,
            "vehicle_id": self.args.vehicle,
            "gateway_id": self.args.gateway,
            "ts": time.time_ns() // 1_000_000,
            **fields,
        }
        published = self.client.publish(f"{self.topic}/up/{topic}", json.dumps(message), qos=1, retain=False)
        published.wait_for_publish(timeout=PATIENCE_S)
        assert published.is_published(), f"no PUBACK for {message_type}"
        print(f"sent {message_type} {fields.get('operation', '')}", flush=True)

    def receive(self):
        command = json.loads(self.commands.get(timeout=PATIENCE_S))
        print(f"got {command['type']}", flush=True)
        assert command["proto_ver"].split(".")[0] == "1", command
        assert command["vehicle_id"] == self.args.vehicle, command
        assert command["gateway_id"] == self.args.gateway, command
        return command

    # -- the conversation ---------------------------------------------------------------------------------

    def wake_up(self):
        leaf = re.search(
            "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----",
            (self.args.certificates / "cert.pem").read_text(),
            re.DOTALL,
        )[0]
        self.send(
            "wakeup",
            "WakeUp",
            boot_id=self.boot_id,
            boot_seq=1,
            uptime_ms=int((time.monotonic() - self.booted) * 1000),
            client_cert_thumbprint=hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf)).hexdigest(),
        )

    def answer_vci(self, command):
        inventory = []
        for ecu_id, ecu in self.ecus.items():
            known = {
                "ecu_id": ecu_id,
                "supplier_code": "PEER",
                "hw_part_no": ecu["hw_part_no"],
                "sw_part_no": f"SW-{ecu_id}",
                "sw_version": ecu["sw_version"],
                "bootloader_ver": "1.0.0",
                "calibration_id": "CAL-PEER",
                "can_id": "0x1" + ecu_id[-2:],
            }
            entry = {field: value for field, value in known.items() if field in command["fields"]}
            inventory.append({"ecu_id": ecu_id, **entry, "functional_group": ecu["group"]})
        power = {"power.battery_12v_v": 12.6, "power.battery_48v_v": 48.1, "power.charging_status": "charged"}
        asked = {name: value for name, value in power.items() if name in command["fields"]}
        self.send(
            "vci",
            "SendVCI",
            correlation_id=command["msg_id"],
            fw_sw_version="9.9.9",
            ecu_inventory=inventory,
            **({"power": asked} if asked else {}),
        )

    def answer_readiness(self, command):
        known = {"power.battery_12v_v": 12.6, "vehicle.speed_kmh": 0, "thermal.temp_ccu_c": 30, "vehicle.gear_position": "P"}
        fields = {name: value for name, value in known.items() if name in command["readiness_requirements"]}
        self.send("readiness", "ReadinessReportForDownload", correlation_id=command["msg_id"], ready=True, requested_fields=fields)

    def update(self, command):
        began = time.monotonic()
        for package in command["packages"]:
            self.verify(package, *self.download(command["transfer"], package))

        def done(operation, rebooted):
            self.send(
                "result",
                "UpdateSuccessResult",
                correlation_id=command["msg_id"],
                operation=operation,
                duration_s=int(time.monotonic() - began),
                rebooted=rebooted,
                ecu_count=len({package["target_component"] for package in command["packages"]}),
                verified_integrity=True,
            )

        done("download", False)
        for package in sorted(command["packages"], key=lambda package: package["install_order"]):
            ecu = self.ecus[package["target_component"]]
            assert ecu["hw_part_no"] == package["hw_part_no"], package
            ecu["sw_version"] = package["target_version"]
        done("install", True)
        done("commit", True)

    # -- files --------------------------------------------------------------------------------------------

    def get(self, base_url, path, **headers):
        base = urllib.parse.urlsplit(base_url)
        assert base.scheme == "https", base_url
        connection = http.client.HTTPSConnection(base.hostname, base.port, context=self.tls, timeout=PATIENCE_S)
        connection.request("GET", base.path.rstrip("/") + path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    def download(self, transfer, package):
        size, chunk = package["size_bytes"], transfer["max_kb_per_msg"] * 1024
        etag = f'"{package["hash_sha256"]}"'
        content = b""
        while len(content) < size:
            last = min(len(content) + chunk, size) - 1
            response, body = self.get(
                transfer["base_url"], package["url"], **{"Range": f"bytes={len(content)}-{last}", "If-Range": etag}
            )
            assert response.status == 206, (response.status, body[:300])
            assert response.headers["Content-Range"] == f"bytes {len(content)}-{last}/{size}", response.headers
            assert response.headers["ETag"] == etag, response.headers
            content += body
        response, _ = self.get(transfer["base_url"], package["url"], **{"If-None-Match": etag})
        assert response.status == 304, response.status
        response, _ = self.get(transfer["base_url"], package["url"], Range=f"bytes={size}-")
        assert response.status == 416, response.status
        response, body = self.get(transfer["base_url"], package["url"] + ".sig")
        assert response.status == 200, response.status
        return content, body

    def verify(self, package, image, signature_der):
        assert len(image) == package["size_bytes"] == package["image_size_bytes"], package
        assert hashlib.sha256(image).hexdigest() == package["hash_sha256"] == package["image_sha256"], package
        with tempfile.TemporaryDirectory() as folder:
            content, signature = Path(folder) / "image", Path(folder) / "signature"
            content.write_bytes(image)
            signature.write_bytes(signature_der)
            subprocess.run(
                ["openssl", "dgst", "-sha256", "-verify", self.args.release_public_key, "-signature", signature, content],
                check=True,
            )
        print(f"verified {package['pkg_id']}: {len(image)} bytes", flush=True)

    def play(self):
        self.connect()
        self.wake_up()
        updated = False
        while True:
            command = self.receive()
            kind = command["type"]
            if kind == "RequestVCI":
                self.answer_vci(command)
                if updated:
                    break
            elif kind == "RequestDownloadReadiness":
                self.answer_readiness(command)
            elif kind == "StartDownload":
                self.update(command)
                updated = True
            else:
                raise AssertionError(f"unexpected command: {command}")
        self.client.disconnect()
        self.client.loop_stop()


if __name__ == "__main__":
    Vmg(arguments()).play()
    sys.exit(0)
