/** Which feature bits mean what on a vhost-user connection: some are the back-end's, some the front-end's own. */

import { Feature, FeatureSet } from '../spec/features.js';

/**
 * Bits that a back-end's offer stands for: they are about rings and packets, which it handles.
 *
 * The others need something that does not travel over the socket (a control queue, a doorbell that carries data, a
 * configuration field), or are the protocol's own.
 */
export const BACKEND_FEATURES = FeatureSet.of(
  Feature.CSUM,
  Feature.GUEST_CSUM,
  Feature.GUEST_TSO4,
  Feature.GUEST_TSO6,
  Feature.GUEST_ECN,
  Feature.GUEST_UFO,
  Feature.HOST_TSO4,
  Feature.HOST_TSO6,
  Feature.HOST_ECN,
  Feature.HOST_UFO,
  Feature.MRG_RXBUF,
  Feature.NOTIFY_ON_EMPTY,
  Feature.ANY_LAYOUT,
  Feature.INDIRECT_DESC,
  Feature.EVENT_IDX,
  Feature.VERSION_1,
  Feature.RING_PACKED,
  Feature.IN_ORDER,
  Feature.ORDER_PLATFORM,
  Feature.GUEST_USO4,
  Feature.GUEST_USO6,
  Feature.HOST_USO,
  Feature.GUEST_HDRLEN,
  Feature.RSC_EXT,
);

/** Bits that the front-end serves by itself, whatever the back-end offers. MQ comes on top where there are more pairs, RING_RESET where that is asked for. */
export const FRONTEND_FEATURES = FeatureSet.of(Feature.MAC, Feature.STATUS, Feature.CTRL_VQ, Feature.CTRL_MAC_ADDR);

/**
 * Bits that the front-end serves, but that the back-end is told of where it offers them.
 *
 * A back-end may give up every pair but the first without MQ, and MQ needs CTRL_VQ (virtio 1.2 §5.1.3.1).
 */
export const ANNOUNCED_FEATURES = FeatureSet.of(Feature.CTRL_VQ, Feature.MQ);
