/** Where a worker or client is: `cloud/region/zone/host`, from the widest part to the narrowest. */

import { HeadpondError } from "./errors.ts";
import type { Brand } from "./ids.ts";

export type Place = Brand<string, "Place">;

export const localPlace = "local/local/local/localhost" as Place;

/** Throws `invalid` unless there are four non-empty parts. */
export function parsePlace(text: string): Place {
  const parts = text.split("/");
  if (parts.length !== 4 || parts.some((part) => !/^[A-Za-z0-9._-]+$/.test(part))) {
    throw new HeadpondError("invalid", `place ${JSON.stringify(text)} is not cloud/region/zone/host`);
  }
  return text as Place;
}

/** The set of places between which bytes are free: by default a region. A block has one owner per egress domain. */
export function egressDomain(place: Place): string {
  return place.split("/").slice(0, 2).join("/");
}

/** How many leading parts two places share, 0 to 4: the larger, the nearer. */
export function nearness(a: Place, b: Place): number {
  const as = a.split("/");
  const bs = b.split("/");
  let shared = 0;
  while (shared < 4 && as[shared] === bs[shared]) shared++;
  return shared;
}

/**
 * `all`, a number of workers, `cloud=gcp,zone=a` (parts that must match), or `worker=w1|w2` (these by their ids). Throws `invalid`.
 */
export type PlaceSelector =
  | { readonly kind: "all" }
  | { readonly kind: "count"; readonly count: number }
  | { readonly kind: "workers"; readonly ids: readonly string[] }
  | { readonly kind: "match"; readonly parts: Readonly<Partial<Record<PlacePart, string>>> };

type PlacePart = "cloud" | "region" | "zone" | "host";
const placeParts: readonly PlacePart[] = ["cloud", "region", "zone", "host"];

export function parsePlaceSelector(text: string): PlaceSelector {
  if (text === "all") return { kind: "all" };
  if (/^[1-9][0-9]{0,5}$/.test(text)) return { kind: "count", count: Number(text) };
  const named = /^worker=([^,=|]+(?:\|[^,=|]+)*)$/.exec(text)?.[1];
  if (named !== undefined) return { kind: "workers", ids: [...new Set(named.split("|"))] };
  const parts: Partial<Record<PlacePart, string>> = {};
  for (const term of text.split(",")) {
    const [name, value, ...rest] = term.split("=");
    const part = placeParts.find((candidate) => candidate === name);
    if (part === undefined || value === undefined || value === "" || rest.length > 0) {
      throw new HeadpondError(
        "invalid",
        `${JSON.stringify(text)} selects no places: write all, a number, zone=a,cloud=gcp, or worker=w1|w2`,
      );
    }
    parts[part] = value;
  }
  return { kind: "match", parts };
}

export function matchesPlace(place: Place, selector: PlaceSelector): boolean {
  if (selector.kind !== "match") return true;
  const values = place.split("/");
  return placeParts.every((part, i) => selector.parts[part] === undefined || selector.parts[part] === values[i]);
}
