import { expect, test } from "vitest";
import { COLUMNS, ordered } from "./columns";
import type { WorkerRow } from "./fleet";

const row = (name: string, cpu?: number, model = "") => ({ name, worker: name, cpu, text: `${name} ${model}`.toLowerCase() }) as WorkerRow;
const column = (id: string) => COLUMNS.find((c) => c.id === id)!;
const names = (rows: WorkerRow[]) => rows.map((r) => r.name);

test("unknown numbers come last in both directions", () => {
  const rows = [row("a"), row("b", 5), row("c", 90)];
  expect(names(ordered(rows, new Map(), "", column("cpu"), false))).toEqual(["b", "c", "a"]);
  expect(names(ordered(rows, new Map(), "", column("cpu"), true))).toEqual(["c", "b", "a"]);
});

test("equal values are in the order of their names, numbers as numbers", () => {
  const rows = [row("llm/10", 1), row("llm/9", 1)];
  expect(names(ordered(rows, new Map(), "", column("cpu"), true))).toEqual(["llm/9", "llm/10"]);
});

test("every word of the filter must match, whatever its case", () => {
  const rows = [row("llm/1", 1, "Llama-3.2-1B"), row("llm/2", 1, "qwen")];
  expect(names(ordered(rows, new Map(), "LLAMA 3.2", column("worker"), false))).toEqual(["llm/1"]);
});
