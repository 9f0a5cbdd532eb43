// New numbers of workers, side by side: what Update.columns says, by slot. Each value is a difference from nothing; what has
// no column, or no value in it, was not measured.

import type { Column, Columns } from "./gen/rbee/v1/telemetry_pb.js";
import type { ProcessStats } from "./gen/rbee/v1/worker_pb.js";
import { Activity, ActivityBasis, EngineSampleState, GpuSampleState, Readiness } from "./gen/rbee/v1/worker_pb.js";

/** What moves of a worker: bytes, bytes per second, percent (100 is one core), wall-clock ms. */
export interface Numbers {
  engineState: EngineSampleState;
  readiness: Readiness;
  running?: number;
  waiting?: number;
  tokens?: number;
  /** Percent. */
  kvCache?: number;
  cpu?: number;
  throttled?: number;
  memory?: number;
  workingSet?: number;
  anon?: number;
  peak?: number;
  oomKills?: number;
  ioRead?: number;
  ioWrite?: number;
  gpu?: number;
  vram?: number;
  vramTotal?: number;
  gpuState: GpuSampleState;
  activity: Activity;
  basis: ActivityBasis;
  idleSinceMs?: number;
}

type Name = Exclude<{ [K in keyof Columns]: Columns[K] extends Column | undefined ? K : never }[keyof Columns], undefined>;

const hundredths = (value: number) => value / 100;
const tenths = (value: number) => value / 10;
const pages = (value: number) => value * 4096;
const kib = (value: number) => value * 1024;
const itself = (value: number) => value;

const READ: [keyof Numbers, Name, (value: number) => number][] = [
  ["cpu", "cpuPct", hundredths],
  ["memory", "memoryCurrent", pages],
  ["ioRead", "ioRead", kib],
  ["ioWrite", "ioWrite", kib],
  ["gpu", "gpuUtilPct", tenths],
  ["vram", "vram", pages],
  ["vramTotal", "vramTotal", pages],
  ["gpuState", "gpuSampleState", itself],
  ["activity", "activity", itself],
  ["basis", "activityBasis", itself],
  ["idleSinceMs", "idleSince", itself],
  ["anon", "anon", pages],
  ["workingSet", "workingSet", pages],
  ["peak", "memoryPeak", pages],
  ["throttled", "cpuThrottledPct", tenths],
  ["oomKills", "oomKills", itself],
  ["engineState", "engineSampleState", itself],
  ["running", "requestsRunning", itself],
  ["waiting", "requestsWaiting", itself],
  ["kvCache", "kvCachePct", tenths],
  ["tokens", "tokensPerSecond", tenths],
  ["readiness", "readiness", itself],
];

/** Every number is named: put over others, they are gone. */
const unmeasured = (): Numbers => ({
  ...(Object.fromEntries(READ.map(([name]) => [name, undefined])) as Partial<Numbers>),
  engineState: EngineSampleState.UNSPECIFIED,
  readiness: Readiness.UNSPECIFIED,
  gpuState: GpuSampleState.UNSPECIFIED,
  activity: Activity.UNSPECIFIED,
  basis: ActivityBasis.UNSPECIFIED,
});

/** The workers that are told of, by slot. */
export function numbersOf(columns: Columns): [number, Numbers][] {
  const rows = slots(columns).map((slot): [number, Numbers] => [slot, unmeasured()]);
  for (const [name, from, unit] of READ) {
    const column = columns[from];
    if (!column) continue;
    const { present, deltas } = column;
    let next = 0;
    rows.forEach(([, numbers], i) => {
      if (present.length > 0 && !((present[i >> 3] ?? 0) & (1 << (i & 7)))) return;
      const value = deltas[next++];
      if (value !== undefined) (numbers as unknown as Record<string, number>)[name] = unit(Number(value));
    });
  }
  return rows;
}

function slots(columns: Columns): number[] {
  let last = 0;
  const all = columns.slotGaps.map((gap) => (last += gap));
  for (let i = 0; i < columns.run; i++) all.push(++last);
  return all;
}

/** The same of a worker that is told whole. */
export function numbersOfStats(stats: ProcessStats | undefined): Numbers {
  if (!stats) return unmeasured();
  return {
    engineState: stats.engineSampleState,
    readiness: stats.readiness,
    running: stats.requestsRunning,
    waiting: stats.requestsWaiting,
    tokens: stats.tokensPerSecond,
    kvCache: stats.kvCachePct,
    cpu: stats.cpuPct,
    throttled: stats.cpuThrottledPct,
    memory: bytes(stats.memoryCurrentBytes),
    workingSet: bytes(stats.workingSetBytes),
    anon: bytes(stats.anonBytes),
    peak: bytes(stats.memoryPeakBytes),
    oomKills: stats.oomKills,
    ioRead: stats.ioReadBytesPerSecond,
    ioWrite: stats.ioWriteBytesPerSecond,
    gpu: stats.gpuUtilPct,
    vram: bytes(stats.vramBytes),
    vramTotal: bytes(stats.vramTotalBytes),
    gpuState: stats.gpuSampleState,
    activity: stats.activity,
    basis: stats.activityBasis,
    idleSinceMs: stats.idleSince && Number(stats.idleSince.seconds) * 1000 + stats.idleSince.nanos / 1e6,
  };
}

function bytes(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}
