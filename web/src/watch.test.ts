import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Fleet } from "./fleet";
import { type WatchResponse, WatchResponseSchema } from "./gen/rbee/v1/fleet_pb.js";
import { DEAD_AFTER_MS, follow, type Link, type Open, RETRY_LAST_MS, retryAfter } from "./watch";

const begin = create(WatchResponseSchema, { event: { case: "snapshotBegin", value: {} } });
const end = create(WatchResponseSchema, { event: { case: "snapshotEnd", value: { revision: "q:7" } } });

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Follows streams made by `streams`, one after the other; the last one for ever. */
function run(...streams: ((signal: AbortSignal) => AsyncIterable<WatchResponse>)[]) {
  const links: Link[] = [];
  const resumed: string[] = [];
  const stop = new AbortController();
  const open: Open = (request, signal) => {
    resumed.push(request.resumeAfter ?? "");
    return streams[Math.min(resumed.length, streams.length) - 1]!(signal);
  };
  const asked: string[] = [];
  let enter = () => {};
  const unlock = (reason: string) => (asked.push(reason), new Promise<void>((resolve) => void (enter = resolve)));
  const done = follow({ open, unlock, fleet: new Fleet(), now: () => Date.now(), random: () => 0.5, onChange: () => {}, onLink: (l) => links.push(l), signal: stop.signal });
  return { links, resumed, asked, enter: () => enter(), end: () => (stop.abort(), done) };
}

async function* silent(signal: AbortSignal): AsyncIterable<WatchResponse> {
  yield begin;
  yield end;
  await new Promise((_, fail) => signal.addEventListener("abort", () => fail(new ConnectError("aborted", Code.Canceled))));
}

async function* refused(): AsyncIterable<WatchResponse> {
  throw new ConnectError("Failed to fetch", Code.Unknown);
}

test("a stream without any message for three bookmarks is dead, and the next one resumes", async () => {
  const f = run(silent);
  await vi.advanceTimersByTimeAsync(DEAD_AFTER_MS - 1);
  expect(f.links.at(-1)?.phase).toBe("live");
  await vi.advanceTimersByTimeAsync(1);
  expect(f.links.at(-1)).toMatchObject({ phase: "reconnecting", reason: "nothing heard for 7.5 s" });
  await vi.advanceTimersByTimeAsync(400);
  expect(f.resumed).toEqual(["", "q:7"]);
  expect(f.links.at(-1)?.phase).toBe("live");
  await f.end();
});

test("since is when the link was lost, however many attempts follow", async () => {
  const f = run(silent, refused);
  await vi.advanceTimersByTimeAsync(DEAD_AFTER_MS);
  const since = f.links.at(-1)?.since;
  await vi.advanceTimersByTimeAsync(20_000);
  expect(f.resumed.length).toBeGreaterThan(5);
  expect(f.links.at(-1)).toMatchObject({ phase: "reconnecting", since, reason: "the queen cannot be reached" });
  await f.end();
});

test("before the first snapshot the page is connecting, with the reason it fails", async () => {
  const f = run(refused);
  await vi.advanceTimersByTimeAsync(1000);
  expect(f.links.every((l) => l.phase === "connecting")).toBe(true);
  expect(f.links.at(-1)?.reason).toBe("the queen cannot be reached");
  await f.end();
});

test("a queen that wants a token is not asked again before there is one", async () => {
  const locked = async function* (): AsyncIterable<WatchResponse> {
    throw new ConnectError("this queen wants a token", Code.Unauthenticated);
  };
  const f = run(locked, silent);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(f.resumed.length).toBe(1);
  expect(f.asked).toEqual(["this queen wants a token"]);
  f.enter();
  await vi.advanceTimersByTimeAsync(1);
  expect(f.links.at(-1)?.phase).toBe("live");
  await f.end();
});

test("a page that is left while it waits for a token ends", async () => {
  const denied = async function* (): AsyncIterable<WatchResponse> {
    throw new ConnectError("needs the role viewer", Code.PermissionDenied);
  };
  const f = run(denied);
  await vi.advanceTimersByTimeAsync(1);
  expect(f.asked.length).toBe(1);
  await f.end();
});

test("waiting doubles from 250 ms to 2 s with a fifth more or less", () => {
  expect([0, 1, 2, 3, 4, 99].map((n) => retryAfter(n, 0.5))).toEqual([250, 500, 1000, 2000, 2000, 2000]);
  expect(retryAfter(0, 0)).toBe(200);
  expect(retryAfter(9, 0.999)).toBeLessThanOrEqual(RETRY_LAST_MS * 1.2);
});
