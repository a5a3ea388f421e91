/** Commands of the control queue (virtio 1.2 §5.1.6.5; later ones where noted). */

import { Feature, type FeatureSet } from './features.js';
import { bytes, layout, le16, le32, le64, u8 } from './layout.js';

/** What every command begins with; the command's data follows, then the ack byte that the device writes. */
export const virtioNetCtrlHdr = layout('virtio_net_ctrl_hdr', 2, { class: u8, command: u8 });

/** The ack byte. */
export const ControlAck = { OK: 0, ERR: 1 } as const;
export type ControlAck = (typeof ControlAck)[keyof typeof ControlAck];
export const CONTROL_ACK_BYTES = u8.bytes;

/** Command classes. */
export const ControlClass = {
  RX: 0,
  MAC: 1,
  VLAN: 2,
  ANNOUNCE: 3,
  MQ: 4,
  GUEST_OFFLOADS: 5,
  /** virtio 1.3. */
  NOTF_COAL: 6,
  /** virtio 1.3. */
  HASH_TUNNEL: 7,
  /** virtio 1.4. */
  STATS: 8,
  /** virtio 1.4. */
  RSS_CTX: 9,
} as const;
export type ControlClass = (typeof ControlClass)[keyof typeof ControlClass];

/** Commands of class RX: one byte, 0 or 1, each (virtio 1.2 §5.1.6.5.1). From ALLUNI on with CTRL_RX_EXTRA. */
export const RxCommand = { PROMISC: 0, ALLMULTI: 1, ALLUNI: 2, NOMULTI: 3, NOUNI: 4, NOBCAST: 5 } as const;
/** Commands of class MAC (virtio 1.2 §5.1.6.5.2). */
export const MacCommand = { TABLE_SET: 0, ADDR_SET: 1 } as const;
/** Commands of class VLAN: le16 identifier (virtio 1.2 §5.1.6.5.3). */
export const VlanCommand = { ADD: 0, DEL: 1 } as const;
/** Commands of class ANNOUNCE: no data (virtio 1.2 §5.1.6.5.4). */
export const AnnounceCommand = { ACK: 0 } as const;
/** Commands of class MQ (virtio 1.2 §5.1.6.5.6, §5.1.6.5.7, §5.1.6.5.6.4). */
export const MqCommand = { VQ_PAIRS_SET: 0, RSS_CONFIG: 1, HASH_CONFIG: 2 } as const;
/** Commands of class GUEST_OFFLOADS: le64 of `GuestOffloadBit` (virtio 1.2 §5.1.6.5.8). */
export const GuestOffloadsCommand = { SET: 0 } as const;
/** Commands of class NOTF_COAL (virtio 1.3). */
export const NotfCoalCommand = { TX_SET: 0, RX_SET: 1, VQ_SET: 2, VQ_GET: 3 } as const;
/** Commands of class HASH_TUNNEL (virtio 1.3). */
export const HashTunnelCommand = { SET: 0 } as const;
/** Commands of class STATS (virtio 1.4). */
export const StatsCommand = { QUERY: 0, GET: 1 } as const;
/** Commands of class RSS_CTX (virtio 1.4). */
export const RssCtxCommand = { CAP_GET: 0, ADD: 1, MOD: 2, DEL: 3 } as const;

/** Every command by class, for names in print and for refusing what is unknown. */
export const controlCommands: { readonly [K in keyof typeof ControlClass]: Readonly<Record<string, number>> } = {
  RX: RxCommand,
  MAC: MacCommand,
  VLAN: VlanCommand,
  ANNOUNCE: AnnounceCommand,
  MQ: MqCommand,
  GUEST_OFFLOADS: GuestOffloadsCommand,
  NOTF_COAL: NotfCoalCommand,
  HASH_TUNNEL: HashTunnelCommand,
  STATS: StatsCommand,
  RSS_CTX: RssCtxCommand,
};

/** Names a command: `MQ/VQ_PAIRS_SET`, `RX/0x9`, `0x2a/0x0`. */
export function controlCommandName(commandClass: number, command: number): string {
  const hex = (value: number): string => `0x${value.toString(16)}`;
  const className = Object.entries(ControlClass).find(([, number]) => number === commandClass)?.[0];
  if (className === undefined) return `${hex(commandClass)}/${hex(command)}`;
  const commands = controlCommands[className as keyof typeof ControlClass];
  return `${className}/${Object.entries(commands).find(([, number]) => number === command)?.[0] ?? hex(command)}`;
}

/** Half a MAC table: the number of addresses, which follow. TABLE_SET has two: unicast, then multicast. */
export const virtioNetCtrlMac = layout('virtio_net_ctrl_mac', 4, { entries: le32 });

/** Data of class VLAN. */
export const virtioNetCtrlVlan = layout('VIRTIO_NET_CTRL_VLAN data', 2, { vlan_id: le16 });

/** Data of VQ_PAIRS_SET. */
export const virtioNetCtrlMq = layout('virtio_net_ctrl_mq', 2, { virtqueue_pairs: le16 });

/** What stands before the indirection table in RSS_CONFIG; its length is the mask plus one. */
export const virtioNetRssConfigHead = layout('virtio_net_rss_config head', 8, {
  hash_types: le32,
  indirection_table_mask: le16,
  unclassified_queue: le16,
});
/** Bytes of an entry of the indirection table: the number of a receiveq, which is its queue index halved. */
export const RSS_TABLE_ENTRY_BYTES = le16.bytes;
/** What stands behind the indirection table in RSS_CONFIG; the key follows. */
export const virtioNetRssConfigTail = layout('virtio_net_rss_config tail', 3, { max_tx_vq: le16, hash_key_length: u8 });

/** Data of HASH_CONFIG; the key follows. */
export const virtioNetHashConfig = layout('virtio_net_hash_config', 13, {
  hash_types: le32,
  reserved: bytes(8),
  hash_key_length: u8,
});

/** Data of TX_SET and RX_SET of class NOTF_COAL. */
export const virtioNetCtrlCoal = layout('virtio_net_ctrl_coal', 8, { max_packets: le32, max_usecs: le32 });
/** Data of VQ_SET of class NOTF_COAL; of VQ_GET the first two fields, the rest is the answer. */
export const virtioNetCtrlCoalVq = layout('virtio_net_ctrl_coal_vq', 12, {
  vq_index: le16,
  reserved: le16,
  max_packets: le32,
  max_usecs: le32,
});

/** Data of SET of class GUEST_OFFLOADS. */
export const virtioNetCtrlGuestOffloads = layout('virtio_net_ctrl_guest_offloads', 8, { offloads: le64 });

/** Bits of `offloads` by number: feature bits, but for the tunnel ones, whose numbers do not fit (virtio 1.4). */
export const GuestOffloadBit = {
  GUEST_CSUM: Feature.GUEST_CSUM,
  GUEST_TSO4: Feature.GUEST_TSO4,
  GUEST_TSO6: Feature.GUEST_TSO6,
  GUEST_ECN: Feature.GUEST_ECN,
  GUEST_UFO: Feature.GUEST_UFO,
  GUEST_UDP_TUNNEL_GSO: 46,
  GUEST_UDP_TUNNEL_GSO_CSUM: 47,
  GUEST_USO4: Feature.GUEST_USO4,
  GUEST_USO6: Feature.GUEST_USO6,
} as const;

/** Every offload that these accepted features have, as `offloads` counts them: all are on at first (virtio 1.2 §5.1.6.5.8). */
export function guestOffloadsOf(features: FeatureSet): bigint {
  let offloads = 0n;
  for (const [name, bit] of Object.entries(GuestOffloadBit)) {
    if (features.has(Feature[name as keyof typeof GuestOffloadBit])) offloads |= 1n << BigInt(bit);
  }
  return offloads;
}

/** The feature bits a class or command needs beside CTRL_VQ: one of them (virtio 1.2 §5.1.6.5). */
export function controlCommandFeatures(commandClass: number, command: number): readonly number[] {
  switch (commandClass) {
    case ControlClass.RX:
      return command <= RxCommand.ALLMULTI ? [Feature.CTRL_RX] : [Feature.CTRL_RX_EXTRA];
    case ControlClass.MAC:
      return command === MacCommand.TABLE_SET ? [Feature.CTRL_RX] : [Feature.CTRL_MAC_ADDR];
    case ControlClass.VLAN:
      return [Feature.CTRL_VLAN];
    case ControlClass.ANNOUNCE:
      return [Feature.GUEST_ANNOUNCE];
    case ControlClass.MQ:
      if (command === MqCommand.RSS_CONFIG) return [Feature.RSS];
      return command === MqCommand.HASH_CONFIG ? [Feature.HASH_REPORT] : [Feature.MQ];
    case ControlClass.GUEST_OFFLOADS:
      return [Feature.CTRL_GUEST_OFFLOADS];
    case ControlClass.NOTF_COAL:
      return command <= NotfCoalCommand.RX_SET ? [Feature.NOTF_COAL] : [Feature.VQ_NOTF_COAL];
    case ControlClass.HASH_TUNNEL:
      return [Feature.HASH_TUNNEL];
    case ControlClass.STATS:
      return [Feature.DEVICE_STATS];
    case ControlClass.RSS_CTX:
      return [Feature.RSS_CONTEXT];
    default:
      return [];
  }
}
