// Keeps one Watch open: connects, notices a dead stream, connects again where it left off. Says what the link is
// doing and why; shows nothing itself.

import { Code, ConnectError } from "@connectrpc/connect";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Fleet } from "./fleet";
import type { WatchRequestSchema, WatchResponse } from "./gen/rbee/v1/fleet_pb.js";

/** The queen sends a bookmark every 2.5 s; three missed mean that the stream is dead. */
export const DEAD_AFTER_MS = 7_500;
/** Waiting between two attempts doubles from the first to the last, with up to a fifth more or less. */
export const RETRY_FIRST_MS = 250;
export const RETRY_LAST_MS = 2_000;
const JITTER = 0.2;
/** The flush class of the dashboard: at most twenty messages a second, whatever the size of the fleet. */
const MIN_INTERVAL_NANOS = 50_000_000;

export type Phase = "connecting" | "live" | "reconnecting";

/** What the connection to the queen is doing. `since` is on the same clock as the fleet's `now`. */
export interface Link {
  phase: Phase;
  since: number;
  /** Why the stream ended; set while reconnecting. */
  reason?: string;
}

export type Open = (request: MessageInitShape<typeof WatchRequestSchema>, signal: AbortSignal) => AsyncIterable<WatchResponse>;

export interface Following {
  open: Open;
  fleet: Fleet;
  now: () => number;
  random: () => number;
  /** Called after every message. */
  onChange: () => void;
  onLink: (link: Link) => void;
  /** Asked when the queen wants a token, or another one; answers when there is something new to try. */
  unlock: (reason: string) => Promise<void>;
  signal: AbortSignal;
}

/** Runs until `signal` is aborted. */
export async function follow(f: Following): Promise<void> {
  let link: Link = { phase: "connecting", since: f.now() };
  const say = (next: Link) => f.onLink((link = next));
  f.onLink(link);
  for (let failures = 0; !f.signal.aborted; failures++) {
    const { reason, locked } = await session(f, () => {
      failures = 0;
      if (link.phase !== "live") say({ phase: "live", since: f.now() });
    });
    if (f.signal.aborted) return;
    f.fleet.disconnected();
    const phase = f.fleet.loaded ? "reconnecting" : "connecting";
    say({ phase, since: link.phase === phase ? link.since : f.now(), reason });
    f.onChange();
    if (locked) await unlocked(f, reason);
    else await pause(retryAfter(failures, f.random()), f.signal);
  }
}

/** Milliseconds to wait after that many failures in a row; `random` is in [0, 1). */
export function retryAfter(failures: number, random: number): number {
  const base = Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** Math.min(failures, 10));
  return base * (1 - JITTER + 2 * JITTER * random);
}

/** One stream, until it ends; the answer says why it did, and whether a token would help. */
async function session(f: Following, onLive: () => void): Promise<{ reason: string; locked: boolean }> {
  const stop = new AbortController();
  const signal = AbortSignal.any([f.signal, stop.signal]);
  let dead = false;
  const kill = () => {
    dead = true;
    stop.abort();
  };
  let timer = setTimeout(kill, DEAD_AFTER_MS);
  try {
    const request = { resumeAfter: f.fleet.revision, minInterval: { seconds: 0n, nanos: MIN_INTERVAL_NANOS }, columns: true };
    for await (const message of f.open(request, signal)) {
      clearTimeout(timer);
      timer = setTimeout(kill, DEAD_AFTER_MS);
      f.fleet.apply(message, f.now());
      if (f.fleet.whole) onLive();
      f.onChange();
    }
    return { reason: "the queen ended the stream", locked: false };
  } catch (error) {
    if (dead) return { reason: `nothing heard for ${DEAD_AFTER_MS / 1000} s`, locked: false };
    const { code } = ConnectError.from(error);
    return { reason: why(error), locked: code === Code.Unauthenticated || code === Code.PermissionDenied };
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

/** A sentence part for people. */
export function why(error: unknown): string {
  const e = ConnectError.from(error);
  if (e.cause instanceof TypeError || /failed to fetch|network ?error|load failed/i.test(e.rawMessage)) return "the queen cannot be reached";
  return e.rawMessage || Code[e.code] || "unknown";
}

/** Waits for a token, or for the end of everything. */
function unlocked(f: Following, reason: string): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      f.signal.removeEventListener("abort", done);
      resolve();
    };
    f.signal.addEventListener("abort", done);
    f.unlock(reason).then(done, done);
  });
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
