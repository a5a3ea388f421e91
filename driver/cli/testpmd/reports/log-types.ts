/** `dump_log_types`: the types that DPDK's applications know by number, at the levels that they begin with. */

/** `RTE_LOGTYPE_*`: those with numbers of their own; places without a name are reserved. */
const TYPES: readonly (string | undefined)[] = [
  'lib.eal',
  'lib.malloc',
  'lib.ring',
  'lib.mempool',
  'lib.timer',
  'pmd',
  'lib.hash',
  'lib.lpm',
  'lib.kni',
  'lib.acl',
  'lib.power',
  'lib.meter',
  'lib.sched',
  'lib.port',
  'lib.table',
  'lib.pipeline',
  'lib.mbuf',
  'lib.cryptodev',
  'lib.efd',
  'lib.eventdev',
  'lib.gso',
  undefined,
  undefined,
  undefined,
  ...Array.from({ length: 8 }, (_, user) => `user${user + 1}`),
];

/** What is logged here is the environment's to choose (`NODE_DEBUG`), whatever level a type has. */
export const logTypes = (): string =>
  `global log level is debug\n${TYPES.flatMap((name, id) => (name === undefined ? [] : `id ${id}: ${name}, level is info\n`)).join('')}`;
