/** Addresses as text, `host:port`. */

import { HeadpondError } from "../base/errors.ts";
import type { Address } from "../io/network.ts";

/** `host:port`, IPv6 in brackets. */
export function formatAddress(address: Address): string {
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/** Throws `invalid`. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^[\]:/\s]+)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port > 65_535) {
    throw new HeadpondError("invalid", `${JSON.stringify(text.slice(0, 256))} is not an address: write HOST:PORT`);
  }
  return { host, port };
}

/** As others write it, made uniform; undefined: it is none. */
export function normaliseAddress(text: string): string | undefined {
  try {
    return formatAddress(parseAddress(text));
  } catch {
    return undefined;
  }
}
