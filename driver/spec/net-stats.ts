/** Statistics that a device keeps and a driver asks for in the control queue (virtio 1.4, "Device Statistics"). */

import { bytes, layout, le16, le64, u8 } from './layout.js';

/** Bits of `supported_stats_types` and `types_bitmap`, and the `type` of what is answered, by number. */
export const NetStatsType = {
  RX_BASIC: 0,
  RX_CSUM: 1,
  RX_GSO: 2,
  RX_SPEED: 3,
  TX_BASIC: 16,
  TX_CSUM: 17,
  TX_GSO: 18,
  TX_SPEED: 19,
  CVQ: 32,
} as const;

/** Answer to QUERY. */
export const virtioNetStatsCapabilities = layout('virtio_net_stats_capabilities', 8, { supported_stats_types: le64 });

/** What GET asks for: one of these for each queue. */
export const virtioNetCtrlQueueStats = layout('virtio_net_ctrl_queue_stats', 16, {
  vq_index: le16,
  reserved: bytes(6),
  types_bitmap: le64,
});

/** What each part of the answer to GET begins with; `size` counts the whole part. */
const replyHeader = { type: u8, reserved: u8, vq_index: le16, reserved1: le16, size: le16 };

export const virtioNetStatsCvq = layout('virtio_net_stats_cvq', 24, {
  ...replyHeader,
  command_num: le64,
  ok_num: le64,
});

/** What each part of the answer begins with, whatever its type. */
export const virtioNetStatsReplyHdr = layout('virtio_net_stats_reply_hdr', 8, replyHeader);

export const virtioNetStatsRxBasic = layout('virtio_net_stats_rx_basic', 56, {
  ...replyHeader,
  rx_notifications: le64,
  rx_packets: le64,
  rx_bytes: le64,
  rx_interrupts: le64,
  rx_drops: le64,
  rx_drop_overruns: le64,
});

export const virtioNetStatsTxBasic = layout('virtio_net_stats_tx_basic', 56, {
  ...replyHeader,
  tx_notifications: le64,
  tx_packets: le64,
  tx_bytes: le64,
  tx_interrupts: le64,
  tx_drops: le64,
  tx_drop_malformed: le64,
});

export const virtioNetStatsRxCsum = layout('virtio_net_stats_rx_csum', 40, {
  ...replyHeader,
  rx_csum_valid: le64,
  rx_needs_csum: le64,
  rx_csum_none: le64,
  rx_csum_bad: le64,
});

export const virtioNetStatsTxCsum = layout('virtio_net_stats_tx_csum', 24, {
  ...replyHeader,
  tx_csum_none: le64,
  tx_needs_csum: le64,
});

export const virtioNetStatsRxGso = layout('virtio_net_stats_rx_gso', 40, {
  ...replyHeader,
  rx_gso_packets: le64,
  rx_gso_bytes: le64,
  rx_gso_packets_coalesced: le64,
  rx_gso_bytes_coalesced: le64,
});

export const virtioNetStatsTxGso = layout('virtio_net_stats_tx_gso', 56, {
  ...replyHeader,
  tx_gso_packets: le64,
  tx_gso_bytes: le64,
  tx_gso_segments: le64,
  tx_gso_segments_bytes: le64,
  tx_gso_packets_noseg: le64,
  tx_gso_bytes_noseg: le64,
});

export const virtioNetStatsRxSpeed = layout('virtio_net_stats_rx_speed', 24, {
  ...replyHeader,
  rx_ratelimit_packets: le64,
  rx_ratelimit_bytes: le64,
});

export const virtioNetStatsTxSpeed = layout('virtio_net_stats_tx_speed', 24, {
  ...replyHeader,
  tx_ratelimit_packets: le64,
  tx_ratelimit_bytes: le64,
});

/** The part of the answer that each type is. */
export const netStatsLayouts = {
  RX_BASIC: virtioNetStatsRxBasic,
  RX_CSUM: virtioNetStatsRxCsum,
  RX_GSO: virtioNetStatsRxGso,
  RX_SPEED: virtioNetStatsRxSpeed,
  TX_BASIC: virtioNetStatsTxBasic,
  TX_CSUM: virtioNetStatsTxCsum,
  TX_GSO: virtioNetStatsTxGso,
  TX_SPEED: virtioNetStatsTxSpeed,
  CVQ: virtioNetStatsCvq,
} as const satisfies Record<keyof typeof NetStatsType, unknown>;
