"""Sends every frame that comes in on an interface back out of it: `tap_reflect.py INTERFACE...`. Prints `ready`; runs until it is ended."""

import errno
import selectors
import socket
import struct
import sys
import time

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_AUXDATA = 8
AUXDATA_BYTES = 20
PACKET_OUTGOING = 4
TP_STATUS_VLAN_VALID = 0x10
FRAME_MAX = 65536
# Of socket(7): as SO_RCVBUF, beyond the system's limit.
SO_RCVBUFFORCE = 33
RECEIVE_BYTES = 1 << 24


def listen(interface):
    """A socket that has all frames of the interface."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind((interface, ETH_P_ALL))
    return wire


def tagged(frame, ancillary):
    """The frame with the VLAN tag that the kernel took off it."""
    for level, kind, data in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, protocol = struct.unpack("IIIHHHH", data)
            if status & TP_STATUS_VLAN_VALID:
                return frame[:12] + struct.pack(">HH", protocol, tci) + frame[12:]
    return frame


def send(wire, frame):
    """A queue of the interface that is full, or being turned off, takes it later."""
    while True:
        try:
            wire.send(frame)
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            time.sleep(0.001)


wires = selectors.DefaultSelector()
for name in sys.argv[1:]:
    wires.register(listen(name), selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in wires.select():
        wire = key.fileobj
        frame, ancillary, _, address = wire.recvmsg(FRAME_MAX, socket.CMSG_SPACE(AUXDATA_BYTES))
        if address[2] != PACKET_OUTGOING:
            send(wire, tagged(frame, ancillary))
