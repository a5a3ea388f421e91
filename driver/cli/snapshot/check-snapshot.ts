/** Takes what another process sent for a snapshot, or says why it is none. */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { PortSnapshot, ProcessInfo, QueueSnapshot, QueueWay, Snapshot, ThreadSnapshot } from './snapshot.js';

type Fields = Readonly<Record<string, unknown>>;

const WAYS: readonly QueueWay[] = ['in', 'out', 'control'];

/** @throws VirtioError BAD_FORMAT */
export function checkSnapshot(value: unknown): Snapshot {
  const { process, at, ports, threads } = fields(value, 'the snapshot');
  return {
    process: checkProcess(process),
    at: number(at, 'at'),
    ports: list(ports, 'ports').map(port),
    threads: list(threads, 'threads').map(thread),
  };
}

/** @throws VirtioError BAD_FORMAT */
export function checkProcess(value: unknown): ProcessInfo {
  const { pid, command, version, startedAt } = fields(value, 'process');
  return {
    pid: number(pid, 'pid'),
    command: text(command, 'command'),
    version: text(version, 'version'),
    startedAt: number(startedAt, 'startedAt'),
  };
}

function port(value: unknown): PortSnapshot {
  const { name, kind, labels, queues } = fields(value, 'a port');
  const checked = Object.entries(fields(labels, 'labels')).map(([label, content]) => [
    label,
    typeof content === 'number' ? content : text(content, label),
  ]);
  return {
    name: text(name, "a port's name"),
    kind: text(kind, 'kind'),
    labels: Object.fromEntries(checked) as PortSnapshot['labels'],
    queues: list(queues, 'queues').map(queue),
  };
}

function queue(value: unknown): QueueSnapshot {
  const { name, way, notifications, ring, drops, ...counters } = fields(value, 'a queue');
  const found = WAYS.find((each) => each === way);
  if (found === undefined) throw wrong('way');
  return {
    name: text(name, "a queue's name"),
    way: found,
    packets: number(counters['packets'], 'packets'),
    bytes: number(counters['bytes'], 'bytes'),
    polls: number(counters['polls'], 'polls'),
    emptyPolls: number(counters['emptyPolls'], 'emptyPolls'),
    noBuffer: number(counters['noBuffer'], 'noBuffer'),
    drops: Object.fromEntries(
      Object.entries(fields(drops, 'drops')).map(([reason, count]) => [reason, number(count, reason)]),
    ),
    ...(notifications !== undefined && { notifications: checkNotifications(notifications) }),
    ...(ring !== undefined && { ring: checkRing(ring) }),
  };
}

function checkNotifications(value: unknown): NonNullable<QueueSnapshot['notifications']> {
  const { kind, sent, saved } = fields(value, 'notifications');
  if (kind !== 'kick' && kind !== 'call') throw wrong('kind');
  return { kind, sent: number(sent, 'sent'), saved: number(saved, 'saved') };
}

function checkRing(value: unknown): NonNullable<QueueSnapshot['ring']> {
  const { size, withDevice } = fields(value, 'ring');
  return {
    size: number(size, 'size'),
    ...(withDevice !== undefined && { withDevice: number(withDevice, 'withDevice') }),
  };
}

function thread(value: unknown): ThreadSnapshot {
  const { name, id, cpuSeconds, processor } = fields(value, 'a thread');
  return {
    name: text(name, "a thread's name"),
    id: number(id, 'id'),
    cpuSeconds: number(cpuSeconds, 'cpuSeconds'),
    ...(processor !== undefined && { processor: number(processor, 'processor') }),
  };
}

function fields(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(what);
  return value as Fields;
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw wrong(what);
  return value;
}

function text(value: unknown, what: string): string {
  if (typeof value !== 'string') throw wrong(what);
  return value;
}

/** Counts and times: not negative. */
function number(value: unknown, what: string): number {
  if (typeof value !== 'number' || !(value >= 0)) throw wrong(what);
  return value;
}

const wrong = (what: string): VirtioError =>
  new VirtioError(ErrorCode.BAD_FORMAT, `the other process sent no snapshot that can be shown: ${what} is wrong`, {
    value: what,
    advice: 'use the same version of virtio-pmd on both sides',
  });
