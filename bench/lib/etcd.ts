/** etcd (Debian's etcd-server) as a peer: one node, fsync on, driven over gRPC as its own clients do. */

import { join } from "node:path";
import { credentials, makeGenericClientConstructor, type ServiceError } from "@grpc/grpc-js";
import { ServerProcess } from "../../src/cli/role-process.ts";
import { freePort, untilListening } from "./processes.ts";

export type Etcd = {
  /** Resolves when the value is durable. */
  put(key: string, value: Buffer): Promise<void>;
  close(): Promise<void>;
};

/** Undefined where there is no etcd. */
export async function startEtcd(directory: string): Promise<Etcd | undefined> {
  const [client, peer] = [await freePort(), await freePort()];
  const server = new ServerProcess("etcd", "etcd", [
    ...["--name", "bench", "--data-dir", join(directory, "etcd"), "--log-level", "error"],
    ...["--listen-client-urls", `http://127.0.0.1:${client}`, "--advertise-client-urls", `http://127.0.0.1:${client}`],
    ...["--listen-peer-urls", `http://127.0.0.1:${peer}`, "--initial-advertise-peer-urls", `http://127.0.0.1:${peer}`],
    ...["--initial-cluster", `bench=http://127.0.0.1:${peer}`],
  ]);
  if (!(await server.spawned())) return undefined;
  await untilListening(client);
  const Kv = makeGenericClientConstructor(
    {
      put: {
        path: "/etcdserverpb.KV/Put",
        requestStream: false,
        responseStream: false,
        requestSerialize: (request: Buffer) => request,
        requestDeserialize: (bytes: Buffer) => bytes,
        responseSerialize: (response: Buffer) => response,
        responseDeserialize: (bytes: Buffer) => bytes,
      },
    },
    "KV",
  );
  const kv = new Kv(`127.0.0.1:${client}`, credentials.createInsecure());
  type Put = (request: Buffer, callback: (error: ServiceError | null) => void) => void;
  const call = (kv as unknown as { put: Put }).put.bind(kv);
  const put = (key: string, value: Buffer): Promise<void> =>
    new Promise((done, fail) => {
      call(encodePut(Buffer.from(key), value), (error) => (error === null ? done() : fail(error)));
    });
  await put("warm", Buffer.alloc(1));
  return {
    put,
    close: async () => {
      kv.close();
      await server.stop();
    },
  };
}

/** PutRequest { bytes key = 1; bytes value = 2; } in protobuf's wire format; lengths below 16,384. */
function encodePut(key: Buffer, value: Buffer): Buffer {
  const field = (tag: number, bytes: Buffer): Buffer[] => {
    const length =
      bytes.length < 128 ? Buffer.of(bytes.length) : Buffer.of((bytes.length & 127) | 128, bytes.length >> 7);
    return [Buffer.of(tag), length, bytes];
  };
  return Buffer.concat([...field(0x0a, key), ...field(0x12, value)]);
}
