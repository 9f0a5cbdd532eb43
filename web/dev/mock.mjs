// A queen for looking at the page: FleetService.Watch over grpc-web with an invented fleet, and dist/ beside it.
// MOCK_PORT, MOCK_HIVES and MOCK_WORKERS (per hive) set its size; SIGUSR1 cuts all streams.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { FleetService } from "../src/gen/rbee/v1/fleet_pb.js";

const port = Number(process.env.MOCK_PORT ?? 7899);
const hiveCount = Number(process.env.MOCK_HIVES ?? 5);
const perHive = Number(process.env.MOCK_WORKERS ?? 5);
const GIB = 2 ** 30;
const MODELS = ["llama-3.2-1b", "qwen2.5-72b-instruct", "mistral-small-24b", undefined, "gemma-3-27b-it"];
const started = Date.now();
const timestamp = (ms) => ({ seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 });
const big = (n) => BigInt(Math.round(n));
const silent = (h) => (h === 3 ? 2 : h === 4 ? 3 : 1);

function hive(h) {
  const gpus = h % 3 === 2 ? [] : Array.from({ length: 1 + (h % 2) }, (_, g) => ({ uuid: `GPU-${h}-${g}`, name: h % 2 ? "NVIDIA H100 80GB HBM3" : "NVIDIA GeForce RTX 4090", memoryTotalBytes: big((h % 2 ? 80 : 24) * GIB), memoryUsedBytes: big((h % 2 ? 61.4 : 17.9) * GIB), utilPct: Math.random() * 100 }));
  const degraded = h === 1;
  return { id: `node-${String(h).padStart(2, "0")}`, hostname: `node-${h}.lab`, advertise: `10.0.0.${h + 10}`, version: "0.1.0", operationalStatus: 2, healthStatus: degraded ? 2 : 1, healthReasons: degraded ? ["cgroup controllers cpu and memory are not delegated: limits are not applied", "the clock is 2.1 s behind"] : [], gpus, gpuSampleState: gpus.length ? 1 : 2, placementLevel: degraded ? 2 : 1, cpuCount: 32, memoryTotalBytes: big(256 * GIB), freshness: silent(h), workerCount: perHive };
}

function worker(h, w, tick) {
  const gpu = h % 3 !== 2;
  const busy = (w + Math.floor(tick / 8)) % 3 !== 0;
  const wave = 0.5 + 0.5 * Math.sin(tick / 3 + w + h);
  const first = tick === 0 && w === 0;
  const stats = { cpuPct: first ? undefined : busy ? 80 + 900 * wave : wave, memoryCurrentBytes: big((4 + 9 * w + wave) * GIB), ioReadBytesPerSecond: first ? undefined : busy ? wave * 3e8 : 0, ioWriteBytesPerSecond: first ? undefined : wave * 4e5, gpuUtilPct: gpu ? (busy ? 20 + 78 * wave : 0) : undefined, vramBytes: gpu ? big((6 + 2 * w + wave) * GIB) : undefined, vramTotalBytes: gpu ? big(80 * GIB) : undefined, gpuSampleState: gpu ? 1 : 2, activity: w === 4 ? 3 : busy ? 1 : 2, activityBasis: gpu ? 2 : 3, idleSince: busy ? undefined : timestamp(Date.now() - 30_000) };
  return { spec: { hive: hive(h).id, group: w % 2 ? "embed" : "llm", instance: String(8080 + w), pid: 4100 + 10 * h + w, startTime: timestamp(started - 3.7e6 * (h + w)), origin: 1, command: ["llama-server"], model: MODELS[(h + w) % 5], modelNames: [MODELS[(h + w) % 5]].filter(Boolean), endpoint: w === 3 ? undefined : { scheme: "http", host: `10.0.0.${h + 10}`, port: 8080 + w }, placement: { level: 1 } }, state: w === 4 ? 1 : 2, freshness: silent(h), stats: w === 4 && h === 0 ? undefined : stats };
}

const hives = [...Array(hiveCount).keys()];
const all = (tick, of) => of.flatMap((h) => Array.from({ length: perHive }, (_, w) => worker(h, w, tick)));
const revision = (tick) => `mock:${tick}`;
const update = (tick, of) => ({ revision: revision(tick), workers: all(tick, of), hives: of.map(hive), beats: of.map((h) => ({ hive: hive(h).id, sampledAt: timestamp(Date.now() - (silent(h) === 1 ? 5 : 60_000)), sequence: BigInt(tick + 1) })) });
let tick = 0;
setInterval(() => tick++, 1000).unref();
let cut = new AbortController();
process.on("SIGUSR1", () => (cut.abort(), (cut = new AbortController())));

async function* watch(_request, context) {
  const cutNow = cut.signal;
  yield { event: { case: "snapshotBegin", value: { reason: 1 } } };
  for (const h of hives) yield { event: { case: "update", value: update(tick, [h]) } };
  yield { event: { case: "snapshotEnd", value: { revision: revision(tick) } } };
  const live = hives.filter((h) => silent(h) === 1);
  for (let turn = 0; !context.signal.aborted; turn++) {
    if (cutNow.aborted) throw new Error("cut by the mock");
    if (turn % 25 === 0) yield { event: { case: "bookmark", value: { revision: revision(tick), time: timestamp(Date.now()), workersOnline: live.length * perHive, workersAvailable: 1, hivesOnline: live.length, hivesAvailable: live.length } } };
    const mine = live.filter((h) => h % 10 === turn % 10);
    if (mine.length) yield { event: { case: "update", value: update(tick, mine) } };
    await new Promise((done) => setTimeout(done, 100));
  }
}

const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript", css: "text/css", svg: "image/svg+xml" };
const rpc = connectNodeAdapter({ routes: (router) => router.service(FleetService, { watch }) });
const server = createServer(async (request, response) => {
  if (request.url.startsWith("/rbee.v1.")) return rpc(request, response);
  const path = request.url === "/" ? "/index.html" : new URL(request.url, "http://mock").pathname;
  const body = await readFile(new URL(`../dist${path}`, import.meta.url)).catch(() => undefined);
  const type = TYPES[path.split(".").pop()] ?? "application/octet-stream";
  response.writeHead(body ? 200 : 404, { "content-type": type, "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'" }).end(body);
});
server.listen(port, "127.0.0.1", () => console.log(`mock queen on http://127.0.0.1:${port}/`));
