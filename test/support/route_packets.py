"""Makes IPv4 packets of every kind, and what a router between three ports has to make of them: route_packets.py FOLDER SEED.

in.pcap goes in at port 0; 1.pcap and 2.pcap have to come out at ports 1 (10.0.0.0/8) and 2 (10.1.0.0/16), in that order, from
the MAC address 00:00:00:00:00:00, which stands for the router's.
"""

import random
import sys

from scapy.all import ARP, ICMP, IP, TCP, UDP, Ether, IPOption_NOP, IPOption_RR, IPv6, Raw, wrpcap

folder, seed = sys.argv[1], int(sys.argv[2])
choose = random.Random(seed)
ROUTER = "02:00:00:00:00:01"
sent, wanted = [], {1: [], 2: []}


def address():
    return choose.choice(["10.1.%d.%d", "10.2.%d.%d", "10.0.%d.%d", "172.16.%d.%d"]) % (
        choose.randrange(256),
        choose.randrange(256),
    )


def port_of(destination):
    if destination.startswith("10.1."):
        return 2
    return 1 if destination.startswith("10.") else None


for number in range(500):
    transport = choose.choice([UDP(sport=number, dport=53), TCP(sport=number, flags="S"), ICMP(id=number)])
    packet = Ether(src="02:00:00:00:00:77", dst=ROUTER) / IP(
        src="192.0.2.%d" % choose.randrange(1, 255),
        dst=address(),
        ttl=choose.choice([1, 2, 3, 64, 128, 255]),
        tos=choose.randrange(256),
        id=choose.randrange(65536),
        flags=choose.choice([0, 0, "DF", "MF"]),
        options=choose.choice([[], [], [IPOption_NOP()] * 4, [IPOption_RR(length=11, routers=["0.0.0.0", "0.0.0.0"])]]),
    )
    packet = packet / transport / Raw(choose.randbytes(choose.randrange(1400)))
    if number % 4 == 0:
        # A checksum of 0xff00 and more, where taking a hop off carries: the identification makes up for the rest.
        packet[IP].id = 0
        packet[IP].id = (IP(bytes(packet[IP])).chksum - choose.randrange(0xFF00, 0xFFFF)) % 0xFFFF
    frame = bytearray(bytes(packet).ljust(60, b"\0"))
    kind = choose.choice(["good"] * 8 + ["checksum", "version", "short header", "too long", "no IP"])
    if kind == "checksum":
        frame[24] ^= choose.randrange(1, 256)
    elif kind == "version":
        frame[14] = 0x60 | (frame[14] & 0x0F)
    elif kind == "short header":
        frame[14] = 0x44
    elif kind == "too long":
        frame[16:18] = (len(frame) - 13).to_bytes(2, "big")
    elif kind == "no IP":
        other = choose.choice([ARP(pdst="10.1.0.1"), IPv6(dst="2001:db8::1") / UDP()])
        frame = bytearray(bytes(Ether(dst=ROUTER) / other).ljust(60, b"\0"))
    sent.append(bytes(frame))
    port = port_of(packet[IP].dst)
    if kind != "good" or packet[IP].ttl == 1 or port is None:
        continue
    # Scapy computes the checksum of what has changed anew, where the router takes a hop off it.
    again = Ether(bytes(frame))
    again[IP].ttl -= 1
    del again[IP].chksum
    again.src, again.dst = "00:00:00:00:00:00", "02:00:00:00:0a:0%d" % port
    wanted[port].append(bytes(again))

wrpcap(f"{folder}/in.pcap", [Raw(frame) for frame in sent], linktype=1)
for port, frames in wanted.items():
    wrpcap(f"{folder}/wanted-{port}.pcap", [Raw(frame) for frame in frames], linktype=1)
