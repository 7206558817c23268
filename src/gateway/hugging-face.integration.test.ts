/** The Hub mirror against the real clients, unmodified. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, suite, type TestContext, test } from "node:test";
import * as hub from "@huggingface/hub";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { type FakeGateways, startFakeGateways } from "../testing/fake-gateways.ts";
import { clientEnvironment, digestsBelow, pythonClient, type RunResult, run, sha256 } from "../testing/hf-clients.ts";

const seed = Date.now() % 2 ** 31;
const random = new Random(seed);
console.log(`seed ${seed}`);

const tokenizer = {
  version: "1.0",
  added_tokens: [],
  pre_tokenizer: { type: "Whitespace" },
  model: { type: "WordLevel", vocab: { "[UNK]": 0, water: 1, falls: 2 }, unk_token: "[UNK]" },
};
const config = { model_type: "bert", hidden_size: 8, num_attention_heads: 2, num_hidden_layers: 1, vocab_size: 3 };

const model: Record<string, Uint8Array> = {
  "README.md": Buffer.from("# falls\n"),
  "config.json": Buffer.from(JSON.stringify(config)),
  "tokenizer.json": Buffer.from(JSON.stringify(tokenizer)),
  "tokenizer_config.json": Buffer.from('{"tokenizer_class":"PreTrainedTokenizerFast","unk_token":"[UNK]"}'),
  "model.safetensors": random.bytes(20 * MiB + 11),
  "onnx/quantised model.bin": random.bytes(300_000),
  "empty.txt": new Uint8Array(0),
};
const dataset: Record<string, Uint8Array> = { "data/train.csv": Buffer.from("a,b\n1,2\n") };

let world: FakeGateways;
const homes: string[] = [];

before(async () => {
  world = await startFakeGateways();
  for (const [name, bytes] of Object.entries(model)) {
    const isWeights = name.endsWith(".safetensors") || name.endsWith(".bin");
    world.cluster.put(`/models/acme/falls/${name}`, bytes, { sha256: isWeights });
  }
  for (const [name, bytes] of Object.entries(dataset)) world.cluster.put(`/datasets/acme/rows/${name}`, bytes);
});
after(async () => {
  await world.close();
  for (const home of homes) rmSync(home, { recursive: true, force: true });
});

function newHome(): string {
  const home = mkdtempSync(path.join(tmpdir(), "headpond-hf-"));
  homes.push(home);
  return home;
}

function digests(files: Readonly<Record<string, Uint8Array>>): Record<string, string> {
  return Object.fromEntries(
    Object.keys(files)
      .sort()
      .map((name) => [name, sha256(files[name] as Uint8Array)]),
  );
}

/** The snapshot that a client made: its directory is named for the commit. */
function snapshot(home: string, repository: string, commit: string): string {
  return path.join(home, "hub", repository, "snapshots", commit);
}

async function commitOf(kind: string, name: string): Promise<string> {
  const response = await fetch(`${world.hub}/api/${kind}/${name}`);
  return ((await response.json()) as { sha: string }).sha;
}

function succeeded(result: RunResult): void {
  assert.equal(result.exitCode, 0, `${result.stdout}\n${result.stderr}`);
}

for (const version of ["2.4.0", "1.33.0", "0.36.2"]) {
  suite(`huggingface_hub ${version}`, { concurrency: false }, () => {
    let bin = "";
    let missing: string | undefined;
    before(async () => {
      const xet = version.startsWith("0.") ? "[hf_xet]" : "";
      const client = await pythonClient(`hf-${version}`, [`huggingface_hub${xet}==${version}`]);
      if ("missing" in client) missing = client.missing;
      else bin = client.bin;
    });

    const claim = (name: string, body: (home: string) => Promise<void>): void => {
      test(name, async (context: TestContext) => {
        if (missing !== undefined) return context.skip(missing);
        world.hubRequests.length = 0;
        await body(newHome());
      });
    };
    const download = (home: string, ...args: readonly string[]): Promise<RunResult> =>
      run(path.join(bin, "hf"), ["download", ...args], { env: clientEnvironment(world.hub, home) });
    const python = (home: string, script: string): Promise<RunResult> =>
      run(path.join(bin, "python"), ["-c", script], { env: clientEnvironment(world.hub, home) });

    claim("a whole repository arrives byte for byte, and a warm run moves no bytes", async (home) => {
      succeeded(await download(home, "acme/falls"));
      const commit = await commitOf("models", "acme/falls");
      const target = snapshot(home, "models--acme--falls", commit);
      assert.deepEqual(digestsBelow(target), digests(model));
      world.hubRequests.length = 0;
      succeeded(await download(home, "acme/falls"));
      assert.deepEqual(
        world.hubRequests.filter((request) => request.startsWith("GET /acme")),
        [],
      );
    });

    claim("a repository at a commit, into a directory of its own", async (home) => {
      const commit = await commitOf("models", "acme/falls");
      const target = path.join(home, "here");
      succeeded(await download(home, "acme/falls", "--revision", commit, "--local-dir", target));
      for (const [name, bytes] of Object.entries(model)) {
        assert.equal(sha256(readFileSync(path.join(target, name))), sha256(bytes), name);
      }
    });

    claim("one file, alone", async (home) => {
      succeeded(await download(home, "acme/falls", "model.safetensors"));
      const target = snapshot(home, "models--acme--falls", await commitOf("models", "acme/falls"));
      assert.deepEqual(Object.keys(digestsBelow(target)), ["model.safetensors"]);
      assert.deepEqual(digestsBelow(target)["model.safetensors"], digests(model)["model.safetensors"]);
    });

    claim("only what a pattern includes", async (home) => {
      succeeded(await download(home, "acme/falls", "--include", "*.json"));
      const target = snapshot(home, "models--acme--falls", await commitOf("models", "acme/falls"));
      assert.deepEqual(Object.keys(digestsBelow(target)), ["config.json", "tokenizer.json", "tokenizer_config.json"]);
    });

    claim("a dataset", async (home) => {
      succeeded(await download(home, "acme/rows", "--repo-type", "dataset"));
      const target = snapshot(home, "datasets--acme--rows", await commitOf("datasets", "acme/rows"));
      assert.deepEqual(digestsBelow(target), digests(dataset));
    });

    claim("a repository, a revision and a file that do not exist are told apart", async (home) => {
      const script = `
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub import errors
def name(call):
    try: call()
    except Exception as e: return type(e).__name__
    return "nothing"
print(name(lambda: snapshot_download("acme/nope")))
print(name(lambda: hf_hub_download("acme/nope", "x")))
print(name(lambda: snapshot_download("acme/falls", revision="nope")))
print(name(lambda: hf_hub_download("acme/falls", "config.json", revision="nope")))
print(name(lambda: hf_hub_download("acme/falls", "nope.json")))
`;
      const result = await python(home, script);
      succeeded(result);
      assert.deepEqual(result.stdout.trim().split("\n"), [
        "RepositoryNotFoundError",
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
        "RevisionNotFoundError",
        version.startsWith("0.") ? "EntryNotFoundError" : "RemoteEntryNotFoundError",
      ]);
    });

    claim("a download goes on where the connection was cut", async (home) => {
      // The last block of a file with a digest is not repaired by another worker: the cut reaches the client.
      for (const worker of world.cluster.workers) worker.faults.cut = { afterBytes: 20 * MiB + 5, times: 1 };
      const first = await download(home, "acme/falls", "model.safetensors");
      for (const worker of world.cluster.workers) worker.faults.cut = undefined;
      if (version.startsWith("0.")) {
        // This line gives up at a cut, and goes on when it is run again.
        assert.notEqual(first.exitCode, 0);
        succeeded(await download(home, "acme/falls", "model.safetensors"));
      } else succeeded(first);
      const gets = world.hubRequests.filter((request) => request.startsWith("GET /acme/falls/resolve/"));
      assert.equal(gets.length, 2, gets.join("\n"));
      assert.match(gets[1] as string, / bytes=[0-9]+-$/);
      const target = snapshot(home, "models--acme--falls", await commitOf("models", "acme/falls"));
      assert.equal(digestsBelow(target)["model.safetensors"], digests(model)["model.safetensors"]);
    });

    claim("a busy mirror is waited for", async (home) => {
      const busy = await startFakeGateways({ workers: 1, hubLimits: { firstBytesMs: 1900 } });
      try {
        busy.cluster.put("/models/acme/busy/model.safetensors", model["onnx/quantised model.bin"] as Uint8Array);
        const faults = busy.cluster.workers[0]?.faults ?? assert.fail("there is no worker");
        // A time to come back that lies beyond the gateway's own patience: the client is told.
        faults.refuse = new HeadpondError("overloaded", "busy", { details: { retryAfterMs: 2000 } });
        faults.refuseTimes = 1;
        const env = clientEnvironment(busy.hub, home);
        const again = (): Promise<RunResult> =>
          run(path.join(bin, "hf"), ["download", "acme/busy", "model.safetensors"], { env });
        const first = await again();
        // The oldest line knows no waiting, and succeeds when it is run again.
        if (version.startsWith("0.")) succeeded(await again());
        else succeeded(first);
        assert.ok(busy.hubRequests.filter((request) => request.startsWith("GET /acme/busy")).length >= 2);
      } finally {
        await busy.close();
      }
    });

    claim("the API's calls answer what a program wants to know", async (home) => {
      const script = `
import json
from huggingface_hub import HfApi, HfFileSystem, hf_hub_url, get_hf_file_metadata
api = HfApi()
info = api.model_info("acme/falls", files_metadata=True)
lfs = [s for s in info.siblings if s.rfilename == "model.safetensors"][0]
fs = HfFileSystem()
with fs.open("acme/falls/model.safetensors") as f:
    f.seek(1000); part = f.read(64)
print(json.dumps({
  "id": info.id, "size": lfs.size, "sha256": lfs.lfs["sha256"] if lfs.lfs else None,
  "tree": [f.path for f in api.list_repo_tree("acme/falls", recursive=True)],
  "refs": [b.target_commit for b in api.list_repo_refs("acme/falls").branches],
  "paths": [p.path for p in api.get_paths_info("acme/falls", ["config.json", "onnx", "nope"])],
  "exists": [api.file_exists("acme/falls", "config.json"), api.file_exists("acme/falls", "nope"), api.repo_exists("acme/falls"), api.repo_exists("acme/nope"), api.revision_exists("acme/falls", "nope")],
  "models": [m.id for m in api.list_models(limit=10)],
  "datasets": [d.id for d in api.list_datasets(limit=10)],
  "ls": sorted(fs.ls("acme/falls/onnx", detail=False)),
  "part": part.hex(),
  "etag": get_hf_file_metadata(hf_hub_url("acme/falls", "model.safetensors")).etag,
}))
`;
      const result = await python(home, script);
      succeeded(result);
      const answer = JSON.parse(result.stdout.trim().split("\n").at(-1) as string) as Record<string, unknown>;
      const weights = model["model.safetensors"] as Uint8Array;
      assert.equal(answer["id"], "acme/falls");
      assert.equal(answer["size"], weights.length);
      assert.equal(answer["sha256"], sha256(weights));
      assert.equal(answer["etag"], sha256(weights));
      assert.deepEqual((answer["tree"] as string[]).sort(), [...Object.keys(model), "onnx"].sort());
      assert.deepEqual(answer["refs"], [await commitOf("models", "acme/falls")]);
      assert.deepEqual(answer["paths"], ["config.json", "onnx"]);
      assert.deepEqual(answer["exists"], [true, false, true, false, false]);
      assert.deepEqual(answer["models"], ["acme/falls"]);
      assert.deepEqual(answer["datasets"], ["acme/rows"]);
      assert.deepEqual(answer["ls"], ["acme/falls/onnx/quantised model.bin"]);
      assert.equal(answer["part"], Buffer.from(weights.subarray(1000, 1064)).toString("hex"));
    });
  });
}

suite("transformers 5.23.0", { concurrency: false }, () => {
  test("AutoConfig and AutoTokenizer load from the mirror, cold and warm", async (context: TestContext) => {
    const client = await pythonClient("transformers-5.23.0", ["transformers==5.23.0"]);
    if ("missing" in client) return context.skip(client.missing);
    const script = `
from transformers import AutoConfig, AutoTokenizer
for _ in range(2):
    print(type(AutoConfig.from_pretrained("acme/falls")).__name__)
    print(AutoTokenizer.from_pretrained("acme/falls")("water falls")["input_ids"])
`;
    const env = clientEnvironment(world.hub, newHome());
    const result = await run(path.join(client.bin, "python"), ["-c", script], { env, timeoutMs: 120_000 });
    succeeded(result);
    assert.deepEqual(result.stdout.trim().split("\n"), ["BertConfig", "[1, 2]", "BertConfig", "[1, 2]"]);
  });
});

suite("@huggingface/hub", { concurrency: false }, () => {
  const repo = "acme/falls";
  const weights = model["model.safetensors"] as Uint8Array;

  test("files are listed, found and downloaded, whole and in slices", async () => {
    const at = { repo, hubUrl: world.hub };
    const names: string[] = [];
    for await (const file of hub.listFiles({ ...at, recursive: true })) if (file.type === "file") names.push(file.path);
    assert.deepEqual(names.sort(), Object.keys(model).sort());
    assert.equal(await hub.fileExists({ ...at, path: "config.json" }), true);
    assert.equal(await hub.fileExists({ ...at, path: "nope" }), false);
    const info = await hub.fileDownloadInfo({ ...at, path: "model.safetensors" });
    assert.equal(info?.size, weights.length);
    assert.equal(info?.etag, `"${sha256(weights)}"`);
    const blob = await hub.downloadFile({ ...at, path: "model.safetensors" });
    assert.equal(sha256(new Uint8Array((await blob?.arrayBuffer()) as ArrayBuffer)), sha256(weights));
    const slice = new Uint8Array((await blob?.slice(100, 300).arrayBuffer()) as ArrayBuffer);
    assert.deepEqual(slice, Uint8Array.from(weights.subarray(100, 300)));
    const empty = await hub.downloadFile({ ...at, path: "empty.txt" });
    assert.equal((await empty?.arrayBuffer())?.byteLength, 0);
    assert.equal(await hub.downloadFile({ ...at, path: "nope" }), null);
    await assert.rejects(hub.downloadFile({ ...at, repo: "acme/nope", path: "x" }), /not found/i);
  });

  test("a snapshot arrives byte for byte", async () => {
    const target = await hub.snapshotDownload({ repo, hubUrl: world.hub, cacheDir: newHome() });
    assert.deepEqual(digestsBelow(target), digests(model));
    assert.equal(path.basename(target), await commitOf("models", repo));
  });

  test("modelInfo and datasetInfo answer", async () => {
    assert.equal((await hub.modelInfo({ name: repo, hubUrl: world.hub })).name, repo);
    assert.equal((await hub.datasetInfo({ name: "acme/rows", hubUrl: world.hub })).name, "acme/rows");
  });
});
