/** The client over TLS, against a port of a real ensemble that asks for a certificate. */

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TlsNetwork, type TlsNetworkOptions } from "../io/tls-network.ts";
import { Authority, hasOpenSsl } from "../testing/certificates.ts";
import { hasZooKeeper, withZooKeeper } from "../testing/zookeeper-ensemble.ts";
import { ZooKeeper } from "./zookeeper.ts";

const skip = !(await hasZooKeeper())
  ? "zookeeper (Debian) is not installed"
  : hasOpenSsl()
    ? false
    : "openssl is not installed: no certificate to test with";

test("a session lives over TLS with certificates on both sides, and nobody without one gets in", { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), "headpond-zk-tls-"));
  try {
    const ours = new Authority(directory, "ours");
    const others = new Authority(directory, "others");
    const server = ours.sign("localhost");
    const identityPath = join(directory, "server.pem");
    const caPath = join(directory, "authority.pem");
    await writeFile(identityPath, server.key + server.certificate);
    await writeFile(caPath, ours.certificate);
    await withZooKeeper(
      directory,
      async (ensemble) => {
        const client = (options: TlsNetworkOptions): ZooKeeper =>
          new ZooKeeper({
            network: new TlsNetwork(options),
            clock: new NodeClock(),
            logger: silentLogger,
            random: new Random(1),
            servers: ensemble.tlsServers,
            sessionTimeoutMs: 2000,
          });
        const zookeeper = client({ ca: ours.certificate, ...ours.sign("client") });
        await zookeeper.create("/tls", Buffer.from("secret"), { mode: "ephemeral" });
        assert.equal((await zookeeper.get("/tls")).data.toString(), "secret");
        const { sessionId } = zookeeper;
        // Over to another server, with TLS again.
        for (const i of [0, 1]) {
          await ensemble.stop(i);
          for (let isThere = false; !isThere; ) {
            isThere = await zookeeper.exists("/tls").then(
              (stat) => stat !== undefined,
              () => false,
            );
          }
          await ensemble.start(i);
        }
        assert.equal(zookeeper.sessionId, sessionId);
        await zookeeper.close();
        for (const options of [
          { ca: others.certificate, ...ours.sign("distrustful") },
          { ca: ours.certificate },
          { ca: ours.certificate, ...others.sign("stranger") },
        ]) {
          const refused = client(options);
          await assert.rejects(refused.get("/"), { code: "unavailable" });
          assert.equal(refused.sessionId, 0n);
          await refused.close();
        }
      },
      { tls: { identityPath, caPath } },
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
