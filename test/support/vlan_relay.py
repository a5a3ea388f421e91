"""A VLAN sub-interface for kernels without one: a tap whose frames go out tagged, and tagged ones come in.

Usage: vlan_relay.py INTERFACE TAP VLAN-ID. Prints `ready` once the tap is there; runs until it is ended.
"""

import fcntl
import os
import select
import socket
import struct
import sys

ETH_P_ALL = 3
ETH_P_8021Q = 0x8100
SOL_PACKET = 263
PACKET_AUXDATA = 8
PACKET_OUTGOING = 4
TP_STATUS_VLAN_VALID = 0x10
TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x0002 | 0x1000
FRAME_MAX = 65536


def open_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_NO_PI))
    return tap


def set_address(name, address):
    """Both interfaces have one MAC address, as a VLAN and its parent do."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        siocsifhwaddr = 0x8924
        fcntl.ioctl(control, siocsifhwaddr, struct.pack("16sH6s8x", name.encode(), 1, address))


def vlan_of(ancillary):
    """The tag that the kernel took off the frame, or None."""
    for level, kind, data in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", data)
            if status & TP_STATUS_VLAN_VALID:
                return tci & 0xFFF
    return None


def main():
    interface, tap_name, vlan = sys.argv[1], sys.argv[2], int(sys.argv[3])
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind((interface, ETH_P_ALL))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    tap = open_tap(tap_name)
    set_address(tap_name, wire.getsockname()[4])
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([wire, tap], [], [])
        if tap in readable:
            try:
                frame = os.read(tap, FRAME_MAX)
            except OSError:
                continue  # the tap is not up yet
            wire.send(frame[:12] + struct.pack(">HH", ETH_P_8021Q, vlan) + frame[12:])
        if wire in readable:
            frame, ancillary, _, address = wire.recvmsg(FRAME_MAX, socket.CMSG_SPACE(20))
            if address[2] != PACKET_OUTGOING and vlan_of(ancillary) == vlan:
                try:
                    os.write(tap, frame)
                except OSError:
                    pass


main()
