// Connect-ES from Node over grpc-web and HTTP/1.1, with code that buf generated. RBEE_URL is a running queen with at
// least one worker; RBEE_HIVE, when set, is the hive to look at.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-node";
import { FleetService } from "./gen/rbee/v1/fleet_pb.js";
import { SchedulerService } from "./gen/rbee/v1/scheduler_pb.js";
import { Activity, Freshness, WorkerState } from "./gen/rbee/v1/worker_pb.js";

const baseUrl = process.env.RBEE_URL;
assert.ok(baseUrl, "RBEE_URL names the queen");
const filter = { hive: process.env.RBEE_HIVE ?? "" };
const transport = createGrpcWebTransport({ baseUrl, httpVersion: "1.1" });
const fleet = createClient(FleetService, transport);
const scheduler = createClient(SchedulerService, transport);
const UNARY = { timeoutMs: 5_000 };
/** Follows until `look` answers something, then ends the call. */
async function follow(request, look) {
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(WATCH_MS)]);
  try {
    for await (const { event } of fleet.watch({ filter, ...request }, { signal })) {
      const found = look(event);
      if (found) return found;
    }
  } finally {
    stop.abort();
  }
  assert.fail("the stream ended");
}

/** A bookmark comes every 2.5 s, an update of a busy worker every second. */
const WATCH_MS = 15_000;

const nameOf = ({ spec }) => `${spec.hive}/${spec.group}/${spec.instance}`;

function assertWhole(worker) {
  assert.match(nameOf(worker), /^[^/]+\/[^/]+\/[^/]+$/);
  assert.ok(worker.spec.pid > 0);
  assert.ok(worker.spec.startTime.seconds > 0n);
  assert.notEqual(worker.state, WorkerState.UNSPECIFIED);
  assert.ok(worker.stats.memoryCurrentBytes > 0n);
}

test("ListWorkers answers the workers in the order of their names", async () => {
  const answer = await fleet.listWorkers({ filter }, UNARY);
  assert.ok(answer.workers.length > 0);
  answer.workers.forEach(assertWhole);
  const names = answer.workers.map(nameOf);
  assert.deepEqual(names, [...names].sort());
  assert.notEqual(answer.revision, "");
  assert.ok(answer.coverage.hivesKnown >= 1);
  assert.ok(answer.workers.some((w) => w.freshness === Freshness.LIVE && w.age !== undefined));
});

test("FindIdleWorkers answers only workers that are known to be idle", async () => {
  const idle = await scheduler.findIdleWorkers({ options: { filter } }, UNARY);
  idle.workers.forEach(assertWhole);
  assert.ok(idle.workers.every((w) => w.stats.activity === Activity.IDLE));
  const all = (await fleet.listWorkers({ filter }, UNARY)).workers.map(nameOf);
  assert.ok(idle.workers.every((w) => all.includes(nameOf(w))));
  if (process.env.RBEE_HIVE) assert.ok(idle.workers.length > 0 && idle.workers.length < all.length, "some are idle, some are not");
});

test("Watch gives a whole snapshot, then updates, and resumes without a second snapshot", async () => {
  const listed = (await fleet.listWorkers({ filter }, UNARY)).workers.map(nameOf);
  const held = new Map();
  let stage = "nothing";
  const revision = await follow({}, (event) => {
    if (event.case === "snapshotBegin") stage = "snapshot";
    if (event.case === "snapshotEnd") {
      assert.equal(stage, "snapshot");
      assert.deepEqual([...held.keys()].sort(), listed);
      stage = "whole";
    }
    if (event.case !== "update") return undefined;
    assert.notEqual(stage, "nothing", "no update before the snapshot begins");
    event.value.workers.forEach((w) => held.set(nameOf(w), w));
    return stage === "whole" && event.value.beats.length > 0 ? event.value.revision : undefined;
  });
  [...held.values()].forEach(assertWhole);

  await follow({ resumeAfter: revision }, (event) => {
    assert.notEqual(event.case, "snapshotBegin", "a fresh revision resumes");
    return event.case === "update" || event.case === "bookmark";
  });
});

test("a bookmark counts the workers that are online", async () => {
  const mark = await follow({}, (event) => event.case === "bookmark" && event.value);
  assert.ok(mark.workersOnline >= 1 && mark.hivesOnline >= 1);
  assert.ok(mark.time.seconds > 0n);
});

test("an error keeps its code and names what was asked for", async () => {
  await assert.rejects(fleet.getWorker({ name: "nowhere/llm/1" }, UNARY), (error) => {
    assert.equal(ConnectError.from(error).code, Code.NotFound);
    assert.match(error.rawMessage, /nowhere\/llm\/1/);
    return true;
  });
});
