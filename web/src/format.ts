// Numbers and words as people read them. What is not known is a dash, never a zero.

import { Activity, ActivityBasis, Engine, EngineSampleState, Freshness, GpuSampleState, PlacementLevel, WorkerState } from "./gen/rbee/v1/worker_pb.js";

export const UNKNOWN = "–";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Three significant digits at most. */
function short(value: number): string {
  if (value >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : 2);
}

export function bytes(value: number | undefined): string {
  if (value === undefined) return UNKNOWN;
  let unit = 0;
  // 999.5 and more would print as four digits.
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${short(value)} ${UNITS[unit]}`;
}

export function rate(value: number | undefined): string {
  if (value === undefined) return UNKNOWN;
  return value === 0 ? "0" : `${bytes(value)}/s`;
}

export function percent(value: number | undefined): string {
  if (value === undefined) return UNKNOWN;
  if (value > 0 && value < 0.1) return "<0.1";
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

/** "4.2 s", "3 m 07 s", "2 h 05 m", "11 d 4 h"; whole seconds unless fractions are asked for. */
export function duration(ms: number | undefined, fractions = false): string {
  if (ms === undefined) return UNKNOWN;
  const s = ms / 1000;
  if (s < 60) return fractions && s < 10 ? `${s.toFixed(1)} s` : `${Math.floor(s)} s`;
  const two = (n: number) => String(Math.floor(n)).padStart(2, "0");
  if (s < 3600) return `${Math.floor(s / 60)} m ${two(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${two((s % 3600) / 60)} m`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export function count(value: number): string {
  return value.toLocaleString("en-GB");
}

export function cores(pct: number): string {
  const used = pct / 100;
  return used >= 100 ? count(Math.round(used)) : used.toFixed(used >= 10 ? 1 : 2);
}

export const FRESHNESS: Record<Freshness, string> = {
  [Freshness.UNSPECIFIED]: "unknown",
  [Freshness.LIVE]: "live",
  [Freshness.STALE]: "stale",
  [Freshness.LOST]: "lost",
};

export const STATE: Record<WorkerState, string> = {
  [WorkerState.UNSPECIFIED]: UNKNOWN,
  [WorkerState.STARTING]: "starting",
  [WorkerState.RUNNING]: "running",
  [WorkerState.BACKOFF]: "back-off",
  [WorkerState.STOPPING]: "stopping",
  [WorkerState.CRASH_LOOP]: "crash loop",
};

export const ACTIVITY: Record<Activity, string> = {
  [Activity.UNSPECIFIED]: UNKNOWN,
  [Activity.BUSY]: "busy",
  [Activity.IDLE]: "idle",
  [Activity.UNKNOWN]: "unknown",
};

export const BASIS: Record<ActivityBasis, string> = {
  [ActivityBasis.UNSPECIFIED]: "",
  [ActivityBasis.ENGINE]: "decided from the engine's own count of requests",
  [ActivityBasis.GPU]: "decided from GPU use",
  [ActivityBasis.CPU]: "decided from CPU use",
};

export const ENGINE: Record<Engine, string> = {
  [Engine.UNSPECIFIED]: "",
  [Engine.LLAMA_CPP]: "llama.cpp",
  [Engine.VLLM]: "vLLM",
  [Engine.SGLANG]: "SGLang",
  [Engine.TGI]: "TGI",
  [Engine.OLLAMA]: "Ollama",
};

export const ENGINE_STATE: Record<EngineSampleState, string> = {
  [EngineSampleState.UNSPECIFIED]: "unknown: no engine is asked",
  [EngineSampleState.OK]: "",
  [EngineSampleState.NO_ENGINE]: "unknown: its port answers, but as no engine that rbee knows",
  [EngineSampleState.UNREACHABLE]: "unknown: nobody listens on its port",
  [EngineSampleState.TIMEOUT]: "unknown: the engine does not answer in time",
  [EngineSampleState.ERROR]: "unknown: the engine's answer could not be understood",
  [EngineSampleState.NO_METRICS]: "unknown: the engine publishes no such number",
  [EngineSampleState.LOADING]: "the engine is loading its model",
  [EngineSampleState.TAKEN]: "unknown: another process has its port",
};

export const GPU_STATE: Record<GpuSampleState, string> = {
  [GpuSampleState.UNSPECIFIED]: "unknown: no GPU sample yet",
  [GpuSampleState.OK]: "",
  [GpuSampleState.NO_GPU]: "no GPU or no driver on this machine",
  [GpuSampleState.UNSUPPORTED]: "unknown: the driver cannot tell per process",
  [GpuSampleState.TIMEOUT]: "unknown: the driver does not answer",
  [GpuSampleState.STALE]: "the driver's last answer is older than 2 s",
  [GpuSampleState.ERROR]: "unknown: the driver answered with an error",
};

export const LEVEL: Record<PlacementLevel, { word: string; title: string }> = {
  [PlacementLevel.UNSPECIFIED]: { word: UNKNOWN, title: "unknown" },
  [PlacementLevel.FULL]: { word: "full", title: "Each worker gets its own cgroup v2 with every controller that its limits need" },
  [PlacementLevel.CGROUP]: { word: "cgroup", title: "Each worker gets its own cgroup v2; at least one controller is missing, so not every limit can be applied" },
  [PlacementLevel.PROCESS]: { word: "process", title: "No cgroup: workers are tracked as processes, limits cannot be applied" },
};
