import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { findBrowser, renderPage } from "../testing/browser.ts";
import { withCluster, writeModel } from "../testing/cluster.ts";

const browser = await findBrowser();

test("the status page shows workers, models and jobs in a real browser, and hostile names stay text", {
  skip: browser === undefined ? "no chromium is installed" : false,
  timeout: 120_000,
}, async () => {
  await withCluster(2, async (cluster) => {
    const store = join(cluster.directory, "store");
    const hostile = "<img src=x onerror=document.title='owned'>";
    await writeModel(store, {
      "acme/tiny/model.safetensors": Buffer.alloc(5_000_000, 7),
      [`acme/${hostile}/model.safetensors`]: "w",
    });
    assert.equal((await cluster.run("mount", "/models", `file://${store}`)).code, 0);
    assert.equal((await cluster.run("load", "/models", "--to", "all")).code, 0);
    const url = cluster.master.ready.endpoints["http"] as string;
    const html = await renderPage(browser as string, `${url}/`);
    for (const text of ["w0", "w1", "live", "/models/acme/tiny", "READY", "succeeded", cluster.masterAddress]) {
      assert.ok(html.includes(text), `the page shows ${text}:\n${html.slice(0, 4000)}`);
    }
    assert.ok(!/<title>owned/.test(html), "no script of a name ran");
    assert.ok(!html.includes("<img src"), "a name is text, not markup");
    assert.ok(html.includes("&lt;img src"), "the hostile name is shown");
  });
});
