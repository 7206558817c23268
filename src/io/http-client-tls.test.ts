/** The client over TLS, against a server with a certificate made for the occasion. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import https from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { HttpClient } from "./http-client.ts";
import { NodeClock } from "./node-clock.ts";

const clock = new NodeClock();

/** A key and a certificate for localhost, or why there is none. */
function makeCertificate(): { key: Buffer; cert: Buffer } | undefined {
  const directory = mkdtempSync(join(tmpdir(), "headpond-tls-"));
  try {
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    const files = ["-keyout", join(directory, "key.pem"), "-out", join(directory, "cert.pem")];
    const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    const { status } = spawnSync("openssl", ["req", ...kind, ...subject, ...files], { stdio: "ignore" });
    if (status !== 0) return undefined;
    return { key: readFileSync(join(directory, "key.pem")), cert: readFileSync(join(directory, "cert.pem")) };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const certificate = makeCertificate();
const skip = certificate === undefined ? "openssl is not installed: no certificate to test with" : false;

test("bulk bodies arrive over TLS at the reader's pace, and an untrusted certificate is refused", {
  skip,
}, async (context) => {
  assert.ok(certificate !== undefined);
  const content = Buffer.alloc(3_000_000, "tls");
  const server = https.createServer({ key: certificate.key, cert: certificate.cert }, (_request, response) => {
    response.setHeader("content-length", content.length);
    response.end(content);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const trusting = new HttpClient({ clock, tls: { ca: certificate.cert } });
  context.after(() => trusting.close());
  for (const host of ["localhost", "127.0.0.1"]) {
    for (let round = 0; round < 2; round++) {
      const response = await trusting.request({ method: "GET", url: `https://${host}:${port}/` });
      const pieces: Buffer[] = [];
      await response.consume(async (bytes) => {
        await Promise.resolve();
        pieces.push(Buffer.from(bytes));
      });
      assert.ok(Buffer.concat(pieces).equals(content));
    }
  }
  assert.equal(trusting.connectionCount, 2, "one kept connection for each name");
  const wary = new HttpClient({ clock });
  context.after(() => wary.close());
  await assert.rejects(wary.request({ method: "GET", url: `https://localhost:${port}/` }), (error) => {
    return isHeadpondError(error, "unavailable") && /certificate/.test(error.message);
  });
});
