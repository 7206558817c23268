/** The TLS door, with both sides here: who is let in and who is not. */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Authority, hasOpenSsl, type Identity } from "../testing/certificates.ts";
import type { Connection, Listener } from "./network.ts";
import { TcpNetwork } from "./tcp-network.ts";
import { TlsNetwork } from "./tls-network.ts";

const skip = hasOpenSsl() ? false : "openssl is not installed: no certificate to test with";
const directory = mkdtempSync(join(tmpdir(), "headpond-tls-network-"));
after(() => rmSync(directory, { recursive: true }));
const ours = skip === false ? new Authority(directory, "ours") : undefined;
const others = skip === false ? new Authority(directory, "others") : undefined;

/** Sends back what it hears. */
async function echo(network: TlsNetwork): Promise<Listener> {
  return network.listen({ host: "127.0.0.1", port: 0 }, (connection) => {
    connection.onData = (chunk) => connection.write(Buffer.from(chunk));
  });
}

async function exchange(connection: Connection, text: string): Promise<string> {
  const heard = new Promise<string>((resolve, reject) => {
    connection.onData = (chunk) => resolve(Buffer.from(chunk).toString());
    connection.onClose = (error) => reject(error ?? new Error("it was ended"));
  });
  connection.write(Buffer.from(text));
  try {
    return await heard;
  } finally {
    connection.destroy();
  }
}

function sign(authority: Authority | undefined, name: string, alternatives?: string): Identity {
  assert.ok(authority !== undefined);
  return authority.sign(name, alternatives);
}

test("bytes go both ways between who has a certificate and who trusts it, by name and by address", {
  skip,
}, async () => {
  const listener = await echo(new TlsNetwork(sign(ours, "localhost")));
  const network = new TlsNetwork({ ca: ours?.certificate });
  for (const host of ["localhost", "127.0.0.1"]) {
    const connection = await network.connect({ host, port: listener.address.port });
    assert.equal(await exchange(connection, host), host);
  }
  await listener.close();
});

test("a certificate of another authority, or for another name, is refused", { skip }, async () => {
  const listener = await echo(new TlsNetwork(sign(ours, "localhost")));
  const { port } = listener.address;
  const distrusting = new TlsNetwork({ ca: others?.certificate });
  await assert.rejects(distrusting.connect({ host: "localhost", port }), /unable to verify|self.signed|issuer/);
  const elsewhere = await echo(new TlsNetwork(sign(ours, "elsewhere", "DNS:elsewhere")));
  const trusting = new TlsNetwork({ ca: ours?.certificate });
  await assert.rejects(trusting.connect({ host: "localhost", port: elsewhere.address.port }), /does not match/);
  const named = new TlsNetwork({ ca: ours?.certificate, serverName: "elsewhere" });
  const connection = await named.connect({ host: "127.0.0.1", port: elsewhere.address.port });
  assert.equal(await exchange(connection, "named"), "named");
  await listener.close();
  await elsewhere.close();
});

test("who is asked for a certificate needs one of the right authority", { skip }, async () => {
  const own = sign(ours, "localhost");
  const listener = await echo(new TlsNetwork({ ...own, ca: ours?.certificate, asksForCertificates: true }));
  const address = { host: "localhost", port: listener.address.port };
  const use = async (network: TlsNetwork): Promise<string> => exchange(await network.connect(address), "let me in");
  const ca = ours?.certificate;
  assert.equal(await use(new TlsNetwork({ ca, ...sign(ours, "client") })), "let me in");
  await assert.rejects(use(new TlsNetwork({ ca })));
  await assert.rejects(use(new TlsNetwork({ ca, ...sign(others, "client") })));
  await listener.close();
});

test("somebody who speaks no TLS is told by an error, and an attempt ends with its signal", { skip }, async () => {
  const open = new Set<Connection>();
  const plain = await new TcpNetwork().listen({ host: "127.0.0.1", port: 0 }, (connection) => {
    open.add(connection);
    connection.onData = () => {
      if (open.size === 1) connection.destroy();
    };
  });
  const network = new TlsNetwork({ ca: ours?.certificate });
  const address = { host: "localhost", port: plain.address.port };
  await assert.rejects(network.connect(address));
  const stop = new AbortController();
  const waiting = network.connect(address, stop.signal);
  while (open.size < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  stop.abort(new Error("no longer wanted"));
  await assert.rejects(waiting, /no longer wanted/);
  for (const connection of open) connection.destroy();
  await plain.close();
});
