import { expect, test } from "vitest";
import { bearer, keep } from "./token";

/** As much of a Storage as is needed. */
function memory(): Storage {
  const all = new Map<string, string>();
  return { getItem: (key: string) => all.get(key) ?? null, setItem: (key: string, value: string) => void all.set(key, value) } as Storage;
}

test("a token that was typed goes with each call, and none goes before", async () => {
  const store = memory();
  const sent: (string | null)[] = [];
  const next = async (request: { header: Headers }) => void sent.push(request.header.get("authorization"));
  const call = bearer(store)(next as never) as unknown as (request: { header: Headers }) => Promise<void>;
  await call({ header: new Headers() });
  keep(store, "  0123456789abcdef\n");
  await call({ header: new Headers() });
  expect(sent).toEqual([null, "Bearer 0123456789abcdef"]);
});
