"""A workshop tester on a CAN bus made of can-isotp, python-can and udsoncan, which know nothing of Farrier.

    can_isotp_peer.py HOST PORT INTERFACE REQUEST_ID RESPONSE_ID IMAGE TARGET_VERSION

Gets onto the bus of a socketcand server and does with one ECU what doip_uds_peer.py does. It takes eight frames
at a time and pads its own with another byte than Farrier does.
"""

import json
import sys

import can
import isotp
from udsoncan.connections import PythonIsoTpConnection

from doip_uds_peer import conversation


def main():
    host, port, interface, request_id, response_id, image_path, version = sys.argv[1:]
    with open(image_path, "rb") as file:
        image = file.read()
    bus = can.Bus(interface="socketcand", host=host, port=int(port), channel=interface)
    notifier = can.Notifier(bus, [], timeout=0.05)
    address = isotp.Address(
        isotp.AddressingMode.Normal_11bits, txid=int(request_id, 0), rxid=int(response_id, 0)
    )
    params = {"stmin": 0, "blocksize": 8, "tx_padding": 0xAA}
    stack = isotp.NotifierBasedCanStack(bus, notifier, address=address, params=params)
    results = conversation(PythonIsoTpConnection(stack), image, version)
    notifier.stop()
    bus.shutdown()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
