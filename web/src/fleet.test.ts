import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ageOf, Fleet, freshnessOf, uptimeOf } from "./fleet";
import { UpdateSchema, WatchResponseSchema } from "./gen/rbee/v1/fleet_pb.js";
import { Freshness, WorkerState } from "./gen/rbee/v1/worker_pb.js";

type Init = MessageInitShape<typeof UpdateSchema>;
const begin = () => create(WatchResponseSchema, { event: { case: "snapshotBegin", value: { reason: 1 } } });
const end = (revision: string) => create(WatchResponseSchema, { event: { case: "snapshotEnd", value: { revision } } });
const update = (value: Init) => create(WatchResponseSchema, { event: { case: "update", value } });
const bookmark = (revision: string) => create(WatchResponseSchema, { event: { case: "bookmark", value: { revision, workersOnline: 1 } } });
const seconds = (s: number) => ({ seconds: BigInt(s), nanos: 0 });
const worker = (instance: string, more = {}) => ({ spec: { hive: "box", group: "llm", instance, pid: 7, modelNames: [] }, state: WorkerState.RUNNING, freshness: Freshness.LIVE, ...more });
const hive = (freshness = Freshness.LIVE) => ({ id: "box", freshness });
const beat = (sequence: number, at = 1000) => ({ hive: "box", sequence: BigInt(sequence), sampledAt: seconds(at) });

function loaded(): Fleet {
  const fleet = new Fleet();
  fleet.apply(begin(), 0);
  fleet.apply(update({ workers: [worker("1")], hives: [hive()], beats: [beat(1)] }), 0);
  fleet.apply(end("q:1"), 0);
  return fleet;
}

test("a snapshot is shown only when it is whole", () => {
  const fleet = loaded();
  fleet.apply(begin(), 10);
  fleet.apply(update({ revision: "q:5", workers: [worker("2")] }), 11);
  expect([...fleet.workers.keys()]).toEqual(["box/llm/1"]);
  expect(fleet.whole).toBe(false);
  fleet.apply(end("q:6"), 12);
  expect([...fleet.workers.keys()]).toEqual(["box/llm/2"]);
  expect(fleet.whole).toBe(true);
});

test("a snapshot that was cut changes nothing, the revision to resume from included", () => {
  const fleet = loaded();
  fleet.apply(begin(), 10);
  fleet.apply(update({ revision: "q:5", workers: [worker("2")] }), 11);
  fleet.apply(bookmark("q:5"), 12);
  fleet.disconnected();
  expect(fleet.revision).toBe("q:1");
  expect([...fleet.workers.keys()]).toEqual(["box/llm/1"]);
});

test("updates and bookmarks move the revision", () => {
  const fleet = loaded();
  fleet.apply(update({ revision: "q:2" }), 1);
  expect(fleet.revision).toBe("q:2");
  fleet.apply(bookmark("q:3"), 2);
  expect(fleet.revision).toBe("q:3");
  expect(fleet.heartbeat?.workersOnline).toBe(1);
});

test("removed objects leave and change the shape", () => {
  const fleet = loaded();
  const shape = fleet.shape;
  fleet.apply(update({ workers: [worker("1", { stats: { cpuPct: 3 } })] }), 1);
  expect(fleet.shape).toBe(shape);
  fleet.apply(update({ removedWorkers: ["box/llm/1"], removedHives: ["box"] }), 2);
  expect(fleet.workers.size + fleet.hives.size).toBe(0);
  expect(fleet.shape).toBeGreaterThan(shape);
});

test("one that leaves while another comes changes the shape", () => {
  const fleet = loaded();
  const shape = fleet.shape;
  fleet.apply(update({ workers: [worker("2")], removedWorkers: ["box/llm/1"] }), 1);
  expect(fleet.shape).toBeGreaterThan(shape);
});

test("numbers in columns are those of the worker on their slot", () => {
  const fleet = loaded();
  const told = { slot: 3, stats: { oomKills: 2, cpuPct: 1, memoryCurrentBytes: 8192n, readiness: 1 } };
  fleet.apply(update({ workers: [worker("1", { slot: 9 }), worker("2", told), worker("3", { slot: 4 })] }), 1);
  const present = Uint8Array.of(0b101);
  const columns = {
    slotGaps: [3],
    run: 1,
    cpuPct: { deltas: [1234n, 0n] },
    memoryCurrent: { present: Uint8Array.of(0b10), deltas: [3n] },
    gpuUtilPct: { present: Uint8Array.of(0b01), deltas: [995n] },
  };
  fleet.apply(update({ columns }), 2);
  const [two, three] = ["2", "3"].map((name) => fleet.workers.get(`box/llm/${name}`));
  expect([two?.cpu, two?.memory, two?.gpu, two?.oomKills, two?.readiness]).toEqual([12.34, undefined, 99.5, undefined, 0]);
  expect([three?.cpu, three?.memory, three?.gpu]).toEqual([0, 12288, undefined]);
  expect(two?.state).toBe(WorkerState.RUNNING);
  fleet.apply(update({ columns: { slotGaps: [3, 1, 5], ioRead: { present, deltas: [1n, 2n] } } }), 3);
  expect(["2", "3", "1"].map((name) => fleet.workers.get(`box/llm/${name}`)?.ioRead)).toEqual([1024, undefined, 2048]);
});

test("numbers of a worker that was never told of mean that everything must be told again", () => {
  const fleet = loaded();
  expect(() => fleet.apply(update({ columns: { slotGaps: [3], cpuPct: { deltas: [1n] } } }), 1)).toThrow("not known here");
  expect(fleet.revision).toBe("");
});

test("absent numbers stay absent and zero stays zero", () => {
  const fleet = loaded();
  fleet.apply(update({ workers: [worker("1", { stats: { cpuPct: 0, memoryCurrentBytes: 0n } })] }), 1);
  const row = fleet.workers.get("box/llm/1");
  expect(row?.cpu).toBe(0);
  expect(row?.memory).toBe(0);
  expect(row?.gpu).toBeUndefined();
  expect(row?.vram).toBeUndefined();
});

test("a beat with a new number makes a sample young, a repeated one does not", () => {
  const fleet = loaded();
  const age = (now: number) => ageOf(fleet.workers.get("box/llm/1")!, fleet.hives.get("box"), now);
  fleet.apply(update({ beats: [beat(1)] }), 4000);
  expect(age(5000)).toBe(5000);
  fleet.apply(update({ beats: [beat(2)] }), 5000);
  expect(age(5200)).toBe(200);
});

test("the age of a hive that a new snapshot repeats is kept, and that of a silent one is unknown", () => {
  const fleet = loaded();
  fleet.apply(begin(), 9000);
  fleet.apply(update({ hives: [hive(Freshness.STALE)], beats: [beat(1)] }), 9000);
  fleet.apply(end("q:9"), 9000);
  expect(fleet.hives.get("box")?.heardAt).toBe(0);
  const fresh = new Fleet();
  fresh.apply(begin(), 50);
  fresh.apply(update({ hives: [hive(Freshness.LOST)], beats: [beat(1)] }), 50);
  fresh.apply(end("q:9"), 50);
  expect(fresh.hives.get("box")?.heardAt).toBeUndefined();
});

test("a worker is as stale as its hive, and nothing is live while disconnected", () => {
  const fleet = loaded();
  const row = fleet.workers.get("box/llm/1")!;
  expect(freshnessOf(row, fleet.hives.get("box"), true)).toBe(Freshness.LIVE);
  expect(freshnessOf(row, fleet.hives.get("box"), false)).toBe(Freshness.STALE);
  fleet.apply(update({ hives: [hive(Freshness.LOST)] }), 1);
  expect(freshnessOf(row, fleet.hives.get("box"), true)).toBe(Freshness.LOST);
  expect(freshnessOf(row, fleet.hives.get("box"), false)).toBe(Freshness.LOST);
});

test("a worker whose samples fail ages though its hive is heard", () => {
  const fleet = loaded();
  fleet.apply(update({ beats: [beat(2)] }), 1000);
  fleet.apply(update({ workers: [worker("1", { freshness: Freshness.STALE })], beats: [beat(3)] }), 5000);
  expect(ageOf(fleet.workers.get("box/llm/1")!, fleet.hives.get("box"), 6000)).toBe(5000);
});

test("uptime runs by the hive's clock and stands still when the hive is silent", () => {
  const fleet = loaded();
  fleet.apply(update({ workers: [worker("1", { spec: { hive: "box", group: "llm", instance: "1", startTime: seconds(940), modelNames: [] } })] }), 0);
  const row = fleet.workers.get("box/llm/1")!;
  expect(uptimeOf(row, fleet.hives.get("box"), true, 500, 9e12)).toBe(60_500);
  expect(uptimeOf(row, fleet.hives.get("box"), false, 500, 9e12)).toBe(60_000);
});
