/** The secret of a mount, looked for wherever a person or a program can look. */

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { runCli, withCluster } from "./cluster.ts";

const secret = "s3cr3t-Xyzzy-9999";

test("the secret of a mount is nowhere to be seen: not in mounts, pages, errors, logs, jobs or dumps", {
  timeout: 120_000,
}, async () => {
  const listing = `<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>
    <IsTruncated>false</IsTruncated><Contents><Key>model.safetensors</Key><Size>7</Size><ETag>"abc"</ETag>
    <LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>`;
  let accepts = true;
  const shown: { readonly where: string; readonly text: string }[] = [];
  const show = (where: string, text: string): void => void shown.push({ where, text });
  const store = http.createServer((request, response) => {
    show("a request to the store", `${request.url} ${JSON.stringify(request.headers)}`);
    const isList = accepts && request.url?.includes("list-type") === true;
    response.writeHead(isList ? 200 : 403, { "content-type": "application/xml" });
    response.end(isList ? listing : "<Error><Code>SignatureDoesNotMatch</Code></Error>");
  });
  store.listen(0, "127.0.0.1");
  await once(store, "listening");
  try {
    await withCluster(1, async (cluster) => {
      const run = async (...args: readonly string[]): Promise<number> => {
        const { code, stdout, stderr } = await cluster.run(...args);
        show(`headpond ${args.slice(0, 3).join(" ")}`, stdout + stderr);
        return code;
      };
      const options = [
        `endpoint=http://127.0.0.1:${(store.address() as AddressInfo).port}`,
        "region=r",
        "accessKeyId=AKIA",
        `secretAccessKey=${secret}`,
      ].flatMap((option) => ["--option", option]);
      assert.equal(await run("mount", "/s3", "s3://b", ...options), 0);
      assert.notEqual(await run("mount", "/x", "s3://b", "--option", `secretAcessKey=${secret}`), 0);
      assert.notEqual(await run("mount", "/x", `s3://AKIA:${secret}@b`), 0);
      accepts = false;
      assert.notEqual(await run("mount", "/x", "s3://b", ...options), 0);
      for (const command of [
        "mounts",
        "mounts --json",
        "fs ls /s3",
        "fs stat /s3/none --json",
        "fs cat /s3/model.safetensors",
        "load /s3 --json",
        "jobs ls --json",
        "jobs show 1",
        "cluster status --json",
        "config show --json",
        "doctor --json",
      ]) {
        await run(...command.split(" "));
      }
      const page = async (url: string): Promise<void> => show(url, await (await fetch(url)).text());
      const api = cluster.master.ready.endpoints["http"] ?? "";
      const { http: worker = "", files = "" } = cluster.workers[0]?.ready.endpoints ?? {};
      for (const path of ["/", "/api/v1/mounts", "/api/v1/openapi.json", "/api/v1/jobs", "/metrics", "/readyz"]) {
        await page(`${api}${path}`);
      }
      for (const path of ["/v1/status", "/metrics", "/readyz"]) await page(`${worker}${path}`);
      await page(`${files}/s3/model.safetensors`);
      const post = (method: string): Promise<Response> =>
        fetch(`${api}/api/v1/rpc/${method}`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: "{}",
        });
      show("rpc mounts", await (await post("mounts")).text());
      // The orders to workers carry it: nobody hears them over HTTP.
      assert.equal((await post("attachWorker")).status, 404);

      await cluster.master.process.stop();
      const journal = join(cluster.directory, "master/journal");
      for (const more of [[], ["--json"]]) {
        const dump = await runCli(["journal", "dump", "--dir", journal, ...more], cluster.directory);
        assert.match(dump.stdout, /s3:\/\/b/, "the dump shows the mount");
        show(`journal dump ${more.join(" ")}`, dump.stdout + dump.stderr);
      }
      for (const { process: running } of [cluster.master, ...cluster.workers])
        show(`log of ${running.name}`, running.log);
    });
  } finally {
    store.close();
    store.closeAllConnections();
  }
  assert.ok(shown.length > 30);
  for (const { where, text } of shown) {
    assert.ok(!text.includes(secret), `${where} shows the secret: ${text.slice(0, 500)}`);
  }
});
