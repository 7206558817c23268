/** `host:port` as text, as people and masters write it. */

import { HeadpondError } from "../base/errors.ts";
import type { Address } from "../io/network.ts";

/** IPv6 hosts stand in brackets. Throws `invalid`. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(text.trim());
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port < 1 || port > 65_535) {
    throw new HeadpondError("invalid", `${JSON.stringify(text)} is not host:port, e.g. master-1:7070`);
  }
  return { host, port };
}
