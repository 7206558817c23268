/**
 * How two ends meet. The client sends the preface and a hello frame: who it is, which protocol versions it speaks, which
 * service and cluster it wants. The server answers with its own hello, which also gives the numbers of its methods, or
 * with an error frame that names both sides' versions. Preface and hello are maps of named fields and keep their form in
 * every version, so that any two releases can at least tell each other why they cannot talk.
 */

import Type, { type Static } from "typebox";
import { HeadpondError } from "../base/errors.ts";
import { codecOf } from "./codec.ts";
import type { Reader } from "./message-reader.ts";
import type { Writer } from "./message-writer.ts";
import type { Service } from "./method.ts";

/** The first bytes of every connection. The first is neither text (HTTP) nor the start of a TLS record. */
export const preface = Buffer.from([0x8f, 0x48, 0x50, 0x44]);

/** For a port that also serves HTTP: whether a connection that begins with `bytes` (one is enough) speaks this protocol. */
export function firstBytesAreRpc(bytes: Uint8Array): boolean {
  return bytes.length > 0 && preface.every((byte, i) => i >= bytes.length || bytes[i] === byte);
}

/** Versions of the protocol that this release speaks. */
export const protocolVersions = { min: 1, max: 1 };
/** A hello larger than this is refused, so that a stranger cannot make us hold much. */
export const helloBytesMax = 64 * 1024;

const shortText = Type.String({ maxLength: 1024 });

/** Who one end is. Nothing here is proof; `token` is for an authenticator to come. */
export const PeerInfo = Type.Object({
  /** Release of the software, e.g. "0.1.0". */
  software: shortText,
  /** What it is: "master", "worker", "client". */
  role: shortText,
  /** Which one it is, for logs. */
  name: shortText,
  /** The cluster it belongs to. Two ends that both name one must name the same. */
  clusterId: Type.Optional(shortText),
  token: Type.Optional(Type.String({ maxLength: 16_384 })),
});
export type PeerInfo = Static<typeof PeerInfo>;

const Version = Type.Integer({ minimum: 0, maximum: 65_535 });
const Limit = Type.Integer({ minimum: 1, maximum: 0xffff_ffff });

export const ClientHello = Type.Object({
  protocolMin: Version,
  protocolMax: Version,
  service: shortText,
  serviceVersion: Version,
  /** Frames larger than this must not be sent to the client. */
  frameBytesMax: Limit,
  peer: PeerInfo,
});
export type ClientHello = Static<typeof ClientHello>;

export const ServerHello = Type.Object({
  protocol: Version,
  service: shortText,
  serviceVersion: Version,
  /** The number of each method by its name. */
  methods: Type.Record(Type.String(), Version),
  frameBytesMax: Limit,
  /** Unary requests, and streams, that the server takes at a time; beyond, it stops reading or refuses. */
  requestsMax: Limit,
  streamsMax: Limit,
  peer: PeerInfo,
});
export type ServerHello = Static<typeof ServerHello>;

export function writeHello(writer: Writer, hello: ClientHello | ServerHello): void {
  writer.value(hello);
}

/** Throws `invalid` when it is not a client's hello. */
export function readClientHello(reader: Reader): ClientHello {
  return readHello(reader, ClientHello) as ClientHello;
}

/** Throws `invalid` when it is not a server's hello. */
export function readServerHello(reader: Reader): ServerHello {
  return readHello(reader, ServerHello) as ServerHello;
}

function readHello(reader: Reader, schema: typeof ClientHello | typeof ServerHello): unknown {
  const hello = reader.value();
  reader.finish();
  codecOf(schema).check(hello, "hello");
  return hello;
}

/**
 * The protocol version that both speak. Throws `unsupported` (versions, service) or `invalid` (cluster): the error goes
 * to the client, so it says what both sides have.
 */
export function agree(hello: ClientHello, service: Service, self: PeerInfo): number {
  const { protocolMin, protocolMax, peer } = hello;
  const version = Math.min(protocolMax, protocolVersions.max);
  const client = `${peer.role} ${peer.name} (${peer.software})`;
  const server = `${self.role} ${self.name} (${self.software})`;
  if (version < Math.max(protocolMin, protocolVersions.min)) {
    throw new HeadpondError(
      "unsupported",
      `${client} speaks protocol versions ${protocolMin} to ${protocolMax}, ${server} ${protocolVersions.min} to ` +
        `${protocolVersions.max}: upgrade the older one`,
      { details: { protocolMin: protocolVersions.min, protocolMax: protocolVersions.max } },
    );
  }
  if (hello.service !== service.name || hello.serviceVersion !== service.version) {
    throw new HeadpondError(
      "unsupported",
      `${client} wants service ${hello.service} version ${hello.serviceVersion}, ${server} has ${service.name} version ` +
        `${service.version}: ${hello.service === service.name ? "upgrade the older one" : "check the address"}`,
      { details: { service: service.name, serviceVersion: service.version } },
    );
  }
  if (peer.clusterId !== undefined && self.clusterId !== undefined && peer.clusterId !== self.clusterId) {
    throw new HeadpondError(
      "invalid",
      `${client} belongs to cluster ${peer.clusterId}, ${server} to ${self.clusterId}: check the address`,
      { details: { clusterId: self.clusterId } },
    );
  }
  return version;
}
