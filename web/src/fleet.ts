// What one Watch has told us so far: workers and hives by name, and how fresh they are. Pure: no clock, no network;
// `now` is milliseconds on a clock that never steps. Numbers that were not measured are undefined, never zero.

import { bytes as formatBytes } from "./format";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Bookmark, Update, WatchResponse } from "./gen/rbee/v1/fleet_pb.js";
import { SnapshotReason } from "./gen/rbee/v1/fleet_pb.js";
import type { Gpu, Hive } from "./gen/rbee/v1/hive_pb.js";
import type { Columns } from "./gen/rbee/v1/telemetry_pb.js";
import { HealthStatus, OperationalStatus } from "./gen/rbee/v1/hive_pb.js";
import type { Worker } from "./gen/rbee/v1/worker_pb.js";
import { Engine, Freshness, GpuSampleState, PlacementLevel, WorkerState } from "./gen/rbee/v1/worker_pb.js";
import { numbersOf, numbersOfStats, type Numbers } from "./numbers";

/** One worker, flat, with plain numbers: bytes, bytes per second, percent (100 is one core), wall-clock ms. */
export interface WorkerRow extends Numbers {
  name: string;
  hive: string;
  worker: string;
  models: string[];
  model?: string;
  pid?: number;
  startMs?: number;
  state: WorkerState;
  freshness: Freshness;
  endpoint?: string;
  level: PlacementLevel;
  notApplied: string[];
  /** How often its restart policy has started it again, and when it does next. */
  restarts: number;
  nextStartMs?: number;
  /** What is looked at, of a worker that rbee did not start. */
  observed: string;
  engine: Engine;
  /** When its last good sample came, set only while its samples fail though its hive is heard. */
  goodAt?: number;
  /** Lower case, for the filter. */
  text: string;
}

/** One machine. `heardAt` is when its last beat arrived here; undefined when none has. */
export interface HiveRow {
  id: string;
  hostname: string;
  advertise: string;
  version: string;
  operational: OperationalStatus;
  health: HealthStatus;
  reasons: string[];
  gpus: GpuRow[];
  gpuState: GpuSampleState;
  level: PlacementLevel;
  cpus?: number;
  /** Of the whole machine: 100 is one core. */
  cpu?: number;
  memoryTotal?: number;
  memoryAvailable?: number;
  freshness: Freshness;
  heardAt?: number;
  sequence?: bigint;
  /** The hive's wall clock at its last sample, in ms. */
  sampledMs?: number;
}

export interface GpuRow {
  uuid: string;
  name: string;
  total?: number;
  used?: number;
  util?: number;
  celsius?: number;
  watts?: number;
  error?: string;
  /** Bytes held by processes that are nobody's worker, as far as they are known, and who they are. */
  foreign: string[];
}

/** The queen's own count, from its last bookmark. */
export interface Heartbeat {
  timeMs?: number;
  workersOnline: number;
  workersAvailable: number;
  hivesOnline: number;
  hivesAvailable: number;
}

interface Objects {
  workers: Map<string, WorkerRow>;
  hives: Map<string, HiveRow>;
  /** Names of workers by what the queen calls them in columns. */
  slots: Map<number, string>;
}

const none = (): Objects => ({ workers: new Map(), hives: new Map(), slots: new Map() });

export class Fleet {
  /** Give it back as resume_after; empty until a snapshot is whole. */
  revision = "";
  /** Grows when a worker or hive comes or goes. */
  shape = 0;
  /** True once a whole snapshot has been seen; what is held then may be old, but is complete. */
  loaded = false;
  heartbeat?: Heartbeat;
  reason = SnapshotReason.UNSPECIFIED;
  private shown = none();
  /** What a snapshot has brought so far; it replaces `shown` only when it is whole. */
  private incoming?: Objects;

  get workers(): ReadonlyMap<string, WorkerRow> {
    return this.shown.workers;
  }

  get hives(): ReadonlyMap<string, HiveRow> {
    return this.shown.hives;
  }

  /** False while a snapshot is on its way. */
  get whole(): boolean {
    return this.loaded && !this.incoming;
  }

  apply(response: WatchResponse, now: number): void {
    const event = response.event;
    switch (event.case) {
      case "snapshotBegin":
        this.incoming = none();
        this.reason = event.value.reason;
        break;
      case "update":
        this.update(event.value, now);
        break;
      case "snapshotEnd":
        if (this.incoming) {
          this.shown = this.incoming;
          this.incoming = undefined;
          this.shape++;
        }
        this.loaded = true;
        this.revision = event.value.revision;
        break;
      case "bookmark":
        this.heartbeat = heartbeat(event.value);
        if (this.whole && event.value.revision) this.revision = event.value.revision;
        break;
    }
  }

  /** Half a snapshot is worth nothing once its stream has ended. */
  disconnected(): void {
    this.incoming = undefined;
  }

  /** New numbers of workers that were told of before. */
  private measure(columns: Columns, into: Objects): void {
    for (const [slot, numbers] of numbersOf(columns)) {
      const name = into.slots.get(slot);
      const row = name === undefined ? undefined : into.workers.get(name);
      if (!row) {
        // What is held here does not fit what the queen tells: everything, please.
        this.revision = "";
        throw new Error("the queen told numbers of a worker that is not known here");
      }
      into.workers.set(row.name, { ...row, ...numbers });
    }
  }

  private update(update: Update, now: number): void {
    const into = this.incoming ?? this.shown;
    const before = into.workers.size + into.hives.size;
    let gone = 0;
    for (const name of update.removedWorkers) gone += Number(into.workers.delete(name));
    for (const id of update.removedHives) gone += Number(into.hives.delete(id));
    for (const hive of update.hives) into.hives.set(hive.id, hiveRow(hive, this.shown.hives.get(hive.id), now));
    for (const worker of update.workers) {
      const row = workerRow(worker);
      if (!row) continue;
      row.goodAt = goodAt(row, worker, into.workers.get(row.name), into.hives.get(row.hive), now);
      into.workers.set(row.name, row);
      if (worker.slot) into.slots.set(worker.slot, row.name);
    }
    if (update.columns) this.measure(update.columns, into);
    for (const beat of update.beats) {
      const hive = into.hives.get(beat.hive);
      // A snapshot may repeat the last beat of a hive that is silent: only a new number is news.
      if (!hive || hive.sequence === beat.sequence) continue;
      const silent = this.incoming && hive.freshness !== Freshness.LIVE;
      hive.sequence = beat.sequence;
      hive.sampledMs = millis(beat.sampledAt);
      hive.heardAt = silent ? undefined : now;
    }
    if (!this.incoming) {
      if (update.revision) this.revision = update.revision;
      if (gone > 0 || into.workers.size + into.hives.size !== before) this.shape++;
    }
  }
}

/** The worse of two; unspecified says nothing. */
function worse(a: Freshness, b: Freshness): Freshness {
  return Math.max(a, b);
}

/** How far a worker's numbers may be trusted. Without a live stream to the queen nothing is LIVE. */
export function freshnessOf(row: WorkerRow, hive: HiveRow | undefined, connected: boolean): Freshness {
  const known = worse(row.freshness, hive?.freshness ?? Freshness.UNSPECIFIED);
  return connected ? known : worse(known, Freshness.STALE);
}

export function hiveFreshnessOf(hive: HiveRow, connected: boolean): Freshness {
  return connected ? hive.freshness : worse(hive.freshness, Freshness.STALE);
}

/** Milliseconds since the last good sample; undefined when that is not known. */
export function ageOf(row: WorkerRow, hive: HiveRow | undefined, now: number): number | undefined {
  const at = row.goodAt ?? hive?.heardAt;
  return at === undefined ? undefined : Math.max(0, now - at);
}

/** Milliseconds of uptime by the hive's own clock, up to its last sample unless that is live. */
export function uptimeOf(row: WorkerRow, hive: HiveRow | undefined, live: boolean, now: number, wallMs: number): number | undefined {
  if (row.startMs === undefined) return undefined;
  const sampled = hive?.sampledMs;
  const since = hive?.heardAt;
  const at = sampled === undefined ? wallMs : sampled + (live && since !== undefined ? now - since : 0);
  return Math.max(0, at - row.startMs);
}

function millis(at: Timestamp | undefined): number | undefined {
  return at ? Number(at.seconds) * 1000 + at.nanos / 1e6 : undefined;
}

function bytes(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

function heartbeat(mark: Bookmark): Heartbeat {
  const { workersOnline, workersAvailable, hivesOnline, hivesAvailable } = mark;
  return { timeMs: millis(mark.time), workersOnline, workersAvailable, hivesOnline, hivesAvailable };
}

function goodAt(row: WorkerRow, worker: Worker, old: WorkerRow | undefined, hive: HiveRow | undefined, now: number): number | undefined {
  if (row.freshness !== Freshness.STALE && row.freshness !== Freshness.LOST) return undefined;
  if (worker.age) return now - Number(worker.age.seconds) * 1000 - worker.age.nanos / 1e6;
  return old?.goodAt ?? (old ? hive?.heardAt : undefined);
}

function workerRow(worker: Worker): WorkerRow | undefined {
  const spec = worker.spec;
  if (!spec) return undefined;
  const name = `${spec.hive}/${spec.group}/${spec.instance}`;
  const at = spec.endpoint;
  const host = at?.host.includes(":") ? `[${at.host}]` : at?.host;
  const endpoint = at ? `${at.scheme || "http"}://${host}:${at.port}` : undefined;
  return {
    name,
    hive: spec.hive,
    worker: `${spec.group}/${spec.instance}`,
    models: spec.modelNames,
    model: spec.model,
    pid: spec.pid || undefined,
    startMs: millis(spec.startTime),
    state: worker.state,
    freshness: worker.freshness,
    endpoint,
    level: spec.placement?.level ?? PlacementLevel.UNSPECIFIED,
    notApplied: spec.placement?.notApplied ?? [],
    restarts: spec.restarts,
    nextStartMs: millis(spec.nextStart),
    observed: spec.observed,
    engine: spec.engine,
    ...numbersOfStats(worker.stats),
    text: [name, spec.model ?? "", ...spec.modelNames, endpoint ?? "", spec.pid].join(" ").toLowerCase(),
  };
}

function gpuRow(gpu: Gpu): GpuRow {
  return {
    uuid: gpu.uuid,
    name: gpu.name,
    total: bytes(gpu.memoryTotalBytes),
    used: bytes(gpu.memoryUsedBytes),
    util: gpu.utilPct,
    celsius: gpu.temperatureCelsius,
    watts: gpu.powerWatts,
    error: gpu.error,
    foreign: gpu.foreign.map((other) => `${other.name || "?"} ${other.pid || "(pid not visible)"} ${formatBytes(bytes(other.vramBytes))}`),
  };
}

function hiveRow(hive: Hive, old: HiveRow | undefined, now: number): HiveRow {
  const age = hive.age ? Number(hive.age.seconds) * 1000 + hive.age.nanos / 1e6 : undefined;
  return {
    id: hive.id,
    hostname: hive.hostname,
    advertise: hive.advertise,
    version: hive.version,
    operational: hive.operationalStatus,
    health: hive.healthStatus,
    reasons: hive.healthReasons,
    gpus: hive.gpus.map(gpuRow),
    gpuState: hive.gpuSampleState,
    level: hive.placementLevel,
    cpus: hive.cpuCount || undefined,
    cpu: hive.host?.cpuPct,
    memoryTotal: bytes(hive.memoryTotalBytes),
    memoryAvailable: bytes(hive.host?.memoryAvailableBytes),
    freshness: hive.freshness,
    heardAt: age === undefined ? old?.heardAt : now - age,
    sequence: old?.sequence,
    sampledMs: old?.sampledMs,
  };
}
