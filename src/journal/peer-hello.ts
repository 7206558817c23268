/**
 * How two masters meet: the dialler says who it is, whom it wants, and what for; the other one answers who it is, or why
 * not. Both look at each other before anything else is believed. Hellos are maps of named fields in JSON and keep that
 * form in every version of the protocol, so that any two releases can at least tell each other why they cannot talk.
 */

import { HeadpondError } from "../base/errors.ts";
import type { PeerIdentity } from "./peers.ts";

/** Versions of docs/formats/peers.md that this release speaks. */
export const peerProtocol = { min: 1, max: 1 } as const;

/**
 * What a connection is for. Entries have one of their own, so that heartbeats and votes never wait behind megabytes of
 * them; so has the transfer of a checkpoint.
 */
export const laneKinds = ["control", "log", "snapshot"] as const;
export type LaneKind = (typeof laneKinds)[number];

export type Hello = {
  readonly peer: PeerIdentity;
  readonly protocolMin: number;
  readonly protocolMax: number;
  readonly lane: LaneKind;
  /** The id that it expects at this address. */
  readonly to: string;
};

export function helloDocument(peer: PeerIdentity, lane: LaneKind, to: string): unknown {
  return { protocolMin: peerProtocol.min, protocolMax: peerProtocol.max, ...peer, lane, to };
}

export function welcomeDocument(peer: PeerIdentity): unknown {
  return { protocol: peerProtocol.max, ...peer };
}

/** Throws `corrupt`. */
export function readHello(head: Uint8Array): Hello {
  const value = parse(head);
  const lane = laneKinds.find((kind) => kind === value["lane"]);
  const protocolMin = value["protocolMin"];
  const protocolMax = value["protocolMax"];
  if (typeof protocolMin !== "number" || typeof protocolMax !== "number") throw malformed("no protocol versions");
  if (lane === undefined) throw malformed(`lane ${JSON.stringify(value["lane"])} is not known`);
  return { peer: identityOf(value), protocolMin, protocolMax, lane, to: textOf(value, "to") };
}

/** Throws `corrupt`. */
export function readWelcome(head: Uint8Array): { readonly peer: PeerIdentity; readonly protocol: number } {
  const value = parse(head);
  const protocol = value["protocol"];
  if (typeof protocol !== "number") throw malformed("no protocol version");
  return { peer: identityOf(value), protocol };
}

export function readRefusal(head: Uint8Array): string {
  return textOf(parse(head), "reason");
}

/** Why `self` must not talk to the one that said `hello`, as far as the hello alone tells. */
export function refusalOfHello(self: PeerIdentity, hello: Hello): string | undefined {
  const { peer, protocolMin, protocolMax, to } = hello;
  if (protocolMin > peerProtocol.max || protocolMax < peerProtocol.min)
    return `${peer.id} speaks versions ${protocolMin} to ${protocolMax} of the masters' protocol, ${self.id} ${peerProtocol.min} to ${peerProtocol.max}: install releases that are closer`;
  if (to !== self.id) return `${self.id} answers at this address, not ${to}: check the addresses of the masters`;
  return refusalOfIdentity(self, peer);
}

export function refusalOfIdentity(self: PeerIdentity, peer: PeerIdentity): string | undefined {
  if (peer.clusterId !== self.clusterId)
    return `${peer.id} belongs to cluster ${peer.clusterId}, ${self.id} to ${self.clusterId}: one of the two has another cluster's data`;
  if (peer.id === self.id) return `two masters call themselves ${self.id}: each needs an id of its own`;
  return undefined;
}

function identityOf(value: Readonly<Record<string, unknown>>): PeerIdentity {
  const address = value["address"];
  return {
    clusterId: textOf(value, "clusterId"),
    id: textOf(value, "id"),
    incarnation: textOf(value, "incarnation"),
    ...(typeof address === "string" ? { address } : {}),
  };
}

function textOf(value: Readonly<Record<string, unknown>>, field: string): string {
  const text = value[field];
  if (typeof text !== "string") throw malformed(`${field} is missing`);
  return text;
}

function parse(head: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(head));
    if (typeof value === "object" && value !== null) return value as Readonly<Record<string, unknown>>;
  } catch {
    // Said below.
  }
  throw malformed(`${head.length} bytes are no JSON object`);
}

function malformed(what: string): HeadpondError {
  return new HeadpondError("corrupt", `not a hello between masters: ${what}`);
}
