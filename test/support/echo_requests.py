"""Requests for a port that answers ARP, ping and IPv6 neighbour discovery, made by scapy; and scapy's look at the answers.

  echo_requests.py make REQUESTS.pcap              prints what each is and what is to become of it, as JSON
  echo_requests.py check REQUESTS ANSWERS INDEXES  INDEXES.json: the request that each answer belongs to
"""

import json
import sys

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Padding, Raw
from scapy.utils import rdpcap, wrpcap

PORT = "02:00:00:00:00:02"
GUEST = "52:54:00:12:34:56"
HOST = "52:54:00:65:43:21"
A4, B4 = "192.0.2.10", "203.0.113.77"
A6, B6, LL6 = "2001:db8::10", "2001:db8:ffff::77", "fe80::5054:ff:fe12:3456"
ALL = "ff:ff:ff:ff:ff:ff"

TAGS = {
    "untagged": [],
    "VLAN 5": [Dot1Q(vlan=5, prio=3)],
    "priority tag": [Dot1Q(vlan=0, prio=7)],
    "QinQ": [Dot1AD(vlan=100), Dot1Q(vlan=4094)],
    "two customer tags": [Dot1Q(vlan=100), Dot1Q(vlan=200)],
}


def frame(payload, dst=HOST, tags=()):
    packet = Ether(src=GUEST, dst=dst)
    for tag in tags:
        packet = packet / tag.copy()
    return packet / payload


def data(length):
    return Raw(bytes((7 * index + 3) & 0xFF for index in range(length)))


def spoil(packet, at):
    """The packet with one byte changed; its checksums are not made anew."""
    raw = bytearray(bytes(packet))
    raw[at] ^= 0x5A
    return Ether(bytes(raw))


def requests():
    for name, tags in TAGS.items():
        yield name + ", ARP", "arp", frame(ARP(op=1, hwsrc=GUEST, psrc=A4, pdst=B4), ALL, tags)
        yield name + ", ping", "icmp", frame(IP(src=A4, dst=B4) / ICMP(id=7, seq=9) / data(56), HOST, tags)
        target = IPv6(src=LL6, dst="ff02::1:ff00:77") / ICMPv6ND_NS(tgt=B6) / ICMPv6NDOptSrcLLAddr(lladdr=GUEST)
        yield name + ", solicitation", "neighbour", frame(target, "33:33:ff:00:00:77", tags)
        yield name + ", ping 6", "icmpv6", frame(IPv6(src=A6, dst=B6) / ICMPv6EchoRequest(id=3, seq=4, data=bytes(data(56))), HOST, tags)
    three = [Dot1Q(vlan=1), Dot1Q(vlan=2), Dot1Q(vlan=3)]
    yield "three tags", "dropOther", frame(IP(src=A4, dst=B4) / ICMP(), HOST, three)

    # ARP
    yield "ARP to one station", "arp", frame(ARP(op=1, hwsrc=GUEST, psrc=A4, pdst=B4), PORT)
    yield "ARP, padded", "arp", frame(ARP(op=1, hwsrc=GUEST, psrc=A4, pdst=B4) / Padding(b"\x5e" * 18), ALL)
    yield "ARP probe", "dropProbe", frame(ARP(op=1, hwsrc=GUEST, psrc="0.0.0.0", pdst=A4), ALL)
    yield "ARP announcement", "dropProbe", frame(ARP(op=1, hwsrc=GUEST, psrc=A4, pdst=A4), ALL)
    yield "ARP reply", "dropOther", frame(ARP(op=2, hwsrc=GUEST, psrc=A4, pdst=B4, hwdst=HOST))
    yield "RARP", "dropOther", frame(ARP(op=3, hwsrc=GUEST, psrc="0.0.0.0", pdst="0.0.0.0"), ALL)
    yield "ARP for another hardware", "dropOther", frame(ARP(hwtype=6, op=1, hwsrc=GUEST, psrc=A4, pdst=B4), ALL)

    # ICMP
    for length in (0, 1, 2, 3, 17, 1000, 1471, 1472, 9000, 65490):
        yield "ping, %d bytes" % length, "icmp", frame(IP(src=A4, dst=B4) / ICMP(id=0xFFFF, seq=length) / data(length))
    yield "ping, all zero", "icmp", frame(IP(src=A4, dst=B4) / ICMP(id=0, seq=0) / Raw(bytes(32)))
    yield "ping, all ones", "icmp", frame(IP(src=A4, dst=B4) / ICMP(id=0xFFFF, seq=0xFFFF) / Raw(b"\xff" * 33))
    yield "ping, padded", "icmp", frame(IP(src=A4, dst=B4) / ICMP() / Padding(b"\x5e" * 18))
    for options in ([IPOption_NOP()] * 4, [IPOption_RR(length=39, pointer=4, routers=["0.0.0.0"] * 9)], [IPOption_Timestamp(flg=0)]):
        label = "ping with options %s" % type(options[0]).__name__
        yield label, "icmp", frame(IP(src=A4, dst=B4, options=options) / ICMP(id=1) / data(20))
    yield "ping, don't fragment", "icmp", frame(IP(src=A4, dst=B4, flags="DF") / ICMP() / data(5))
    yield "ping to a group", "icmp", frame(IP(src=A4, dst="224.0.0.1", ttl=1) / ICMP() / data(8), "01:00:5e:00:00:01")
    yield "ping to all", "icmp", frame(IP(src="192.0.2.1", dst="255.255.255.255") / ICMP() / data(8), ALL)
    yield "ping to a network", "icmp", frame(IP(src=A4, dst="192.0.2.255") / ICMP() / data(8), ALL)
    yield "first fragment", "dropFragment", frame(IP(src=A4, dst=B4, flags="MF") / ICMP() / data(1480))
    yield "later fragment", "dropFragment", frame(IP(src=A4, dst=B4, frag=185, proto=1) / data(100))
    yield "echo reply", "dropOther", frame(IP(src=A4, dst=B4) / ICMP(type=0) / data(8))
    yield "timestamp request", "dropOther", frame(IP(src=A4, dst=B4) / ICMP(type=13))
    yield "echo request of another code", "dropOther", frame(IP(src=A4, dst=B4) / ICMP(type=8, code=1))
    yield "UDP", "dropOther", frame(IP(src=A4, dst=B4) / UDP(sport=1, dport=2) / data(20))
    yield "TCP", "dropOther", frame(IP(src=A4, dst=B4) / TCP(sport=1, dport=2))
    yield "ping from nowhere", "dropMalformed", frame(IP(src="0.0.0.0", dst=B4) / ICMP())
    yield "ping from a group", "dropMalformed", frame(IP(src="224.0.0.5", dst=B4) / ICMP())
    yield "ping from all", "dropMalformed", frame(IP(src="255.255.255.255", dst=B4) / ICMP())
    yield "ping in a frame from a group", "dropMalformed", Ether(src="01:00:5e:00:00:01", dst=HOST) / IP(src=A4, dst=B4) / ICMP()
    yield "longer than the packet", "dropMalformed", frame(IP(src=A4, dst=B4, len=200) / ICMP() / data(20))
    yield "shorter than its header", "dropMalformed", frame(IP(src=A4, dst=B4, len=19) / ICMP() / data(20))
    yield "a header of 16 bytes", "dropMalformed", frame(IP(src=A4, dst=B4, ihl=4) / ICMP() / data(20))
    yield "a header longer than the packet", "dropMalformed", frame(IP(src=A4, dst=B4, ihl=15) / ICMP())
    yield "IPv5", "dropMalformed", frame(IP(version=5, src=A4, dst=B4) / ICMP())
    good = frame(IP(src=A4, dst=B4) / ICMP() / data(20))
    yield "header checksum", "dropChecksum", spoil(good, 14 + 8)
    yield "checksum of the data", "dropChecksum", spoil(good, 14 + 20 + 8 + 19)

    # ICMPv6
    for length in (0, 1, 2, 3, 17, 1000, 1452, 8952):
        message = ICMPv6EchoRequest(id=0xFFFF, seq=length, data=bytes(data(length)))
        yield "ping 6, %d bytes" % length, "icmpv6", frame(IPv6(src=A6, dst=B6) / message)
    yield "ping 6, all zero", "icmpv6", frame(IPv6(src="::1", dst="::2") / ICMPv6EchoRequest(id=0, seq=0, data=bytes(32)))
    yield "ping 6, padded", "icmpv6", frame(IPv6(src=A6, dst=B6) / ICMPv6EchoRequest() / Padding(b"\x5e" * 9))
    yield "ping 6 to a group", "icmpv6", frame(IPv6(src=LL6, dst="ff02::1") / ICMPv6EchoRequest(data=b"abc"), "33:33:00:00:00:01")
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])
    yield "ping 6 with options", "icmpv6", frame(IPv6(src=A6, dst=B6) / IPv6ExtHdrHopByHop() / options / ICMPv6EchoRequest(data=b"x" * 9))
    many = IPv6(src=A6, dst=B6)
    for _ in range(5):
        many = many / IPv6ExtHdrDestOpt()
    yield "ping 6 with many options", "dropOther", frame(many / ICMPv6EchoRequest())
    yield "ping 6 with a route", "dropOther", frame(IPv6(src=A6, dst=B6) / IPv6ExtHdrRouting(addresses=[A6]) / ICMPv6EchoRequest())
    yield "fragment 6", "dropFragment", frame(IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(m=1) / ICMPv6EchoRequest())
    yield "echo reply 6", "dropOther", frame(IPv6(src=A6, dst=B6) / ICMPv6EchoReply())
    yield "router solicitation", "dropOther", frame(IPv6(src=LL6, dst="ff02::2") / ICMPv6ND_RS(), "33:33:00:00:00:02")
    yield "UDP 6", "dropOther", frame(IPv6(src=A6, dst=B6) / UDP(sport=1, dport=2))
    yield "ping 6 from nowhere", "dropMalformed", frame(IPv6(src="::", dst=B6) / ICMPv6EchoRequest())
    yield "ping 6 from a group", "dropMalformed", frame(IPv6(src="ff02::5", dst=B6) / ICMPv6EchoRequest())
    yield "longer than the packet, 6", "dropMalformed", frame(IPv6(src=A6, dst=B6, plen=300) / ICMPv6EchoRequest())
    yield "options longer than the packet", "dropMalformed", frame(IPv6(src=A6, dst=B6) / IPv6ExtHdrDestOpt(len=200) / ICMPv6EchoRequest())
    yield "IPv7", "dropMalformed", frame(IPv6(version=7, src=A6, dst=B6) / ICMPv6EchoRequest())
    yield "checksum 6", "dropChecksum", spoil(frame(IPv6(src=A6, dst=B6) / ICMPv6EchoRequest(data=b"x" * 20)), 14 + 40 + 20)
    yield "checksum 6, address", "dropChecksum", spoil(frame(IPv6(src=A6, dst=B6) / ICMPv6EchoRequest()), 14 + 39)

    # Neighbour discovery
    ns = IPv6(src=LL6, dst="ff02::1:ff00:77") / ICMPv6ND_NS(tgt=B6)
    to = "33:33:ff:00:00:77"
    yield "solicitation without option", "neighbour", frame(ns, to)
    yield "solicitation to one station", "neighbour", frame(IPv6(src=A6, dst=B6) / ICMPv6ND_NS(tgt=B6), PORT)
    yield "solicitation with more options", "neighbour", frame(ns / ICMPv6NDOptUnknown(type=14, len=1, data=bytes(6)) / ICMPv6NDOptSrcLLAddr(lladdr=GUEST), to)
    yield "solicitation, padded", "neighbour", frame(ns / Padding(b"\x5e" * 30), to)
    yield "duplicate address detection", "dropProbe", frame(IPv6(src="::", dst="ff02::1:ff12:3456") / ICMPv6ND_NS(tgt=LL6), to)
    yield "solicitation from afar", "dropMalformed", frame(IPv6(src=A6, dst=B6, hlim=254) / ICMPv6ND_NS(tgt=B6))
    yield "solicitation of a group", "dropMalformed", frame(IPv6(src=A6, dst="ff02::1") / ICMPv6ND_NS(tgt="ff02::1"), to)
    yield "option of no length", "dropMalformed", frame(ns / ICMPv6NDOptSrcLLAddr(lladdr=GUEST, len=0), to)
    yield "option longer than the packet", "dropMalformed", frame(ns / ICMPv6NDOptSrcLLAddr(lladdr=GUEST, len=2), to)
    yield "solicitation, checksum", "dropChecksum", spoil(frame(ns, to), 14 + 40 + 12)
    advertisement = IPv6(src=B6, dst=LL6) / ICMPv6ND_NA(tgt=B6) / ICMPv6NDOptDstLLAddr(lladdr=HOST)
    yield "advertisement", "dropOther", frame(advertisement)

    yield "of no type we know", "dropOther", Ether(src=GUEST, dst=HOST, type=0x88B5) / data(46)
    yield "of a length", "dropOther", Ether(src=GUEST, dst=ALL, type=46) / data(46)


def make(path):
    made = [(label, kind, bytes(packet)) for label, kind, packet in requests()]
    wrpcap(path, [Raw(raw) for _, _, raw in made], linktype=1)
    json.dump([{"label": label, "kind": kind} for label, kind, _ in made], sys.stdout)


def tags_of(packet):
    tags = []
    layer = packet.payload
    while isinstance(layer, (Dot1Q, Dot1AD)):
        tags.append((type(layer).__name__, layer.vlan, layer.prio, layer.id))
        layer = layer.payload
    return tags


def rebuilt(packet):
    """The packet with every checksum made anew by scapy."""
    copy = packet.copy()
    layer = copy
    while layer:
        if "chksum" in layer.fields:
            del layer.chksum
        if "cksum" in layer.fields:
            del layer.cksum
        layer = layer.payload
    return bytes(copy)


def check_answer(request, answer):
    to_group = int(request.dst[:2], 16) & 1
    own = ARP in request or ICMPv6ND_NS in request or to_group
    assert answer.dst == request.src, "to whom it is"
    assert answer.src == (PORT if own else request.dst), "whom it is from"
    assert tags_of(answer) == tags_of(request), "tags"
    assert rebuilt(answer) == bytes(answer), "checksums"
    if ARP in request:
        asked, found = request[ARP], answer[ARP]
        assert (found.op, found.hwsrc, found.psrc) == (2, PORT, asked.pdst), "who answers"
        assert (found.hwdst, found.pdst) == (asked.hwsrc, asked.psrc), "who is answered"
        assert found.answers(asked), "scapy: answers"
        assert len(answer) == len(request)
    elif ICMPv6ND_NS in request:
        ip, found = answer[IPv6], answer[ICMPv6ND_NA]
        asked = request[ICMPv6ND_NS]
        assert (ip.src, ip.dst, ip.hlim, ip.nh, ip.plen) == (asked.tgt, request[IPv6].src, 255, 58, 32), "header"
        assert (found.R, found.S, found.O, found.tgt, found.res) == (0, 1, 1, asked.tgt, 0), "flags and target"
        option = found.payload
        assert isinstance(option, ICMPv6NDOptDstLLAddr) and (option.len, option.lladdr) == (1, PORT), "option"
        assert not option.payload, "nothing behind"
    elif ICMPv6EchoRequest in request:
        asked, found = request[ICMPv6EchoRequest], answer[ICMPv6EchoReply]
        assert (found.id, found.seq, found.data) == (asked.id, asked.seq, asked.data), "id, number, data"
        group = request[IPv6].dst.startswith("ff")
        assert answer[IPv6].src == ("fe80::ff:fe00:2" if group else request[IPv6].dst), "source"
        assert answer[IPv6].dst == request[IPv6].src, "destination"
        assert len(answer) == len(request)
        if not group:
            assert answer[IPv6].answers(request[IPv6]), "scapy: answers"
    else:
        asked, found = request[IP], answer[IP]
        assert (found[ICMP].type, found[ICMP].code) == (0, 0)
        assert (found[ICMP].id, found[ICMP].seq) == (asked[ICMP].id, asked[ICMP].seq), "id, number"
        assert bytes(found[ICMP].payload) == bytes(asked[ICMP].payload), "data"
        sources = {A4: "192.0.2.9", "192.0.2.1": "192.0.2.2"}
        assert found.src == (sources[asked.src] if to_group else asked.dst), "source"
        assert found.dst == asked.src, "destination"
        same = ("ihl", "tos", "len", "id", "flags", "frag", "ttl", "options")
        assert all(getattr(found, name) == getattr(asked, name) for name in same), "header"
        assert len(answer) == len(request)
        if not to_group:
            assert found.answers(asked), "scapy: answers"


def check(requests_path, answers_path, indexes_path):
    asked = [Ether(bytes(packet)) for packet in rdpcap(requests_path)]
    answers = [Ether(bytes(packet)) for packet in rdpcap(answers_path)]
    with open(indexes_path) as file:
        indexes = json.load(file)
    labels = [label for label, _, _ in requests()]
    assert len(indexes) == len(answers)
    failures = 0
    for index, answer in zip(indexes, answers):
        try:
            check_answer(asked[index], answer)
        except Exception as error:
            failures += 1
            print("%s: %r\n  %s\n  %s" % (labels[index], error, asked[index].summary(), answer.summary()))
    print("%d answers, %d wrong" % (len(answers), failures))


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](*sys.argv[2:])
