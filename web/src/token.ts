// The token that the queen wants with each call, where she wants one. Kept for this tab only and for this origin alone
// (a cookie would go to every port of the same host); sent as a header, so that no other page can make a call with it.

import type { Interceptor } from "@connectrpc/connect";

const KEY = "rbee-token";

/** Keeps what somebody typed. */
export function keep(store: Storage, token: string): void {
  store.setItem(KEY, token.trim());
}

/** Puts the token on each call, if there is one. */
export function bearer(store: Storage): Interceptor {
  return (next) => (request) => {
    const token = store.getItem(KEY);
    if (token) request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}
