// Sums over the fleet. Only what is live is counted; what had to be left out is said.

import type { Fleet } from "./fleet";
import { freshnessOf, hiveFreshnessOf } from "./fleet";
import { Activity, Freshness, WorkerState } from "./gen/rbee/v1/worker_pb.js";

/** A sum over the values that are known; `sum` is undefined when none is. */
export interface Sum {
  sum?: number;
  unknown: number;
}

export interface Totals {
  workers: number;
  online: number;
  available: number;
  hives: number;
  hivesOnline: number;
  cpu: Sum;
  cores: Sum;
  memory: Sum;
  memoryTotal: Sum;
  gpus: number;
  vram: Sum;
  vramTotal: Sum;
}

function add(into: Sum, value: number | undefined): void {
  if (value === undefined) into.unknown++;
  else into.sum = (into.sum ?? 0) + value;
}

/** While the link is down the totals are those of the last moment it was up. */
export function totals(fleet: Fleet): Totals {
  const none = (): Sum => ({ unknown: 0 });
  const t: Totals = {
    workers: fleet.workers.size,
    online: 0,
    available: 0,
    hives: fleet.hives.size,
    hivesOnline: 0,
    cpu: none(),
    cores: none(),
    memory: none(),
    memoryTotal: none(),
    gpus: 0,
    vram: none(),
    vramTotal: none(),
  };
  for (const hive of fleet.hives.values()) {
    if (hiveFreshnessOf(hive, true) !== Freshness.LIVE) continue;
    t.hivesOnline++;
    add(t.cores, hive.cpus);
    add(t.memoryTotal, hive.memoryTotal);
    for (const gpu of hive.gpus) {
      t.gpus++;
      add(t.vram, gpu.used);
      add(t.vramTotal, gpu.total);
    }
  }
  for (const row of fleet.workers.values()) {
    if (freshnessOf(row, fleet.hives.get(row.hive), true) !== Freshness.LIVE) continue;
    t.online++;
    if (row.activity === Activity.IDLE && row.state === WorkerState.RUNNING) t.available++;
    add(t.cpu, row.cpu);
    add(t.memory, row.memory);
  }
  return t;
}
