import { expect, test } from "vitest";
import { bytes, cores, duration, percent, rate, UNKNOWN } from "./format";

test("unknown is a dash and zero is zero", () => {
  for (const show of [bytes, rate, percent, duration]) expect(show(undefined)).toBe(UNKNOWN);
  expect([bytes(0), rate(0), percent(0), duration(0)]).toEqual(["0 B", "0", "0.0", "0 s"]);
});

test("bytes keep three digits and powers of 1024", () => {
  expect([bytes(999), bytes(1000), bytes(1024), bytes(1536 * 1024), bytes(24 * 2 ** 30)]).toEqual(["999 B", "0.98 KiB", "1 KiB", "1.50 MiB", "24 GiB"]);
});

test("something small is not shown as nothing", () => {
  expect(percent(0.01)).toBe("<0.1");
  expect(rate(1)).toBe("1 B/s");
});

test("durations have two units at most", () => {
  expect([duration(4_200, true), duration(187_000), duration(7_500_000), duration(964_800_000)]).toEqual(["4.2 s", "3 m 07 s", "2 h 05 m", "11 d 4 h"]);
});

test("a hundred percent is one core", () => {
  expect([cores(50), cores(1_234), cores(1_234_500)]).toEqual(["0.50", "12.3", "12,345"]);
});
