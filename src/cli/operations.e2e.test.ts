/**
 * The commands of docs/operations.md, in their order. A line `h1$ command` runs on the "machine" h1: a directory of its own with the `headpond.yaml`
 * that the page shows for it, and ports of its own on loopback; `systemctl` starts and stops its master, and so does a command line that
 * runs one. Every other command must end with 0.
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { MasterStatus } from "../base/cluster.ts";
import { freePortBlock, headpondBin, type StartedRole, startRole } from "./role-process.ts";

const page = new URL("../../docs/operations.md", import.meta.url);
const portsPerMachine = 5;
const hostPattern = /\b([hn][1-9])\b/;

type Step =
  | { readonly kind: "config"; readonly hosts: readonly string[]; readonly text: string }
  | { readonly kind: "command"; readonly host: string; readonly command: string };

/** Blocks of configuration that say for whom they are, and command lines that say where they run. */
function stepsOf(markdown: string): Step[] {
  const steps: Step[] = [];
  for (const [, language, block = ""] of markdown.matchAll(/```(yaml|console)\n([\s\S]*?)```/g)) {
    if (language === "console") {
      for (const line of block.split("\n")) {
        const [, host, command] = /^([hn][1-9])\$ (.+)$/.exec(line) ?? [];
        if (host !== undefined && command !== undefined) steps.push({ kind: "command", host, command });
      }
      continue;
    }
    const [title = "", ...lines] = block.split("\n");
    if (title.startsWith("# headpond.yaml on ")) {
      steps.push({ kind: "config", hosts: hostsOf(title), text: lines.join("\n") });
    }
  }
  return steps;
}

/** `on n1; on n2 and n3 with their names`, `on h2 to h5`. */
function hostsOf(title: string): string[] {
  const [, letter, from, to] = /([hn])([1-9]) to [hn]([1-9])/.exec(title) ?? [];
  const range =
    letter === undefined
      ? []
      : Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) => `${letter}${Number(from) + i}`);
  return [...new Set([...(title.match(/\b[hn][1-9]\b/g) ?? []), ...range])];
}

class Machine {
  readonly name: string;
  readonly directory: string;
  readonly #place: (text: string, machine: string) => string;
  #environment: NodeJS.ProcessEnv;
  #service: StartedRole | undefined;

  constructor(options: {
    name: string;
    directory: string;
    place: (text: string, machine: string) => string;
    path: string;
  }) {
    this.name = options.name;
    this.directory = join(options.directory, options.name);
    this.#place = options.place;
    this.#environment = { ...process.env, NO_COLOR: "1", PATH: `${options.path}:${process.env["PATH"]}` };
    delete this.#environment["HEADPOND_MASTERS"];
  }

  get isRunning(): boolean {
    return this.#service !== undefined && !this.#service.process.hasExited;
  }

  /** The block as it is for `h1` (or `n1`), with this machine's own name and id in their place. */
  async configure(text: string): Promise<void> {
    await mkdir(this.directory, { recursive: true });
    const number = this.name.slice(1);
    const own = text.replace("id: m1", `id: m${number}`).replace(/advertise: [hn]1/, `advertise: ${this.name}`);
    await writeFile(join(this.directory, "headpond.yaml"), this.#place(own, this.name));
  }

  async run(command: string): Promise<string> {
    const exported = /^export (\w+)=(\S+)$/.exec(command);
    if (exported !== null) {
      this.#environment = {
        ...this.#environment,
        [exported[1] as string]: this.#place(exported[2] as string, this.name),
      };
      return "";
    }
    const [program, verb] = command.split(" ");
    if (program === "systemctl") {
      const signal = verb === "kill" ? "SIGKILL" : "SIGTERM";
      if (verb !== "start") await this.stop(signal);
      if (verb === "start" || verb === "restart") await this.#start("headpond master --config headpond.yaml");
      return "";
    }
    if (command.startsWith("headpond master ")) {
      await this.#start(command);
      return "";
    }
    return this.#shell(this.#place(command, this.name));
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    await this.#service?.process.stop(signal);
  }

  async #start(command: string): Promise<void> {
    assert.ok(!this.isRunning, `${this.name}: a master runs already`);
    const words = this.#place(command, this.name).replace("headpond.yaml", join(this.directory, "headpond.yaml"));
    this.#service = await startRole(this.name, words.split(" ").slice(1), { environment: this.#environment });
  }

  async #shell(command: string): Promise<string> {
    const child = spawn("bash", ["-c", command], {
      cwd: this.directory,
      env: this.#environment,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
    const code = await new Promise<number | null>((done) => child.once("close", done));
    assert.equal(code, 0, `${this.name}$ ${command}\n${output}\n${this.#service?.process.log ?? ""}`);
    return output;
  }
}

test("the commands of docs/operations.md do what it says", { timeout: 280_000 }, async () => {
  const steps = stepsOf(await readFile(page, "utf8"));
  assert.ok(steps.filter(({ kind }) => kind === "command").length > 30, "there are commands");
  const directory = await mkdtemp(join(tmpdir(), "headpond-operations-"));
  const portBase = await freePortBlock(99);
  const names = [...new Set(steps.flatMap((step) => (step.kind === "command" ? [step.host] : step.hosts)))].sort();
  const portOf = (host: string, port: string): number =>
    portBase + names.indexOf(host) * portsPerMachine + Number(port.slice(-1));
  const place = (text: string, machine: string): string =>
    text
      .replace(/\b([hn][1-9]):(707[0-4])\b/g, (_, host: string, port: string) => `127.0.0.1:${portOf(host, port)}`)
      .replace(/0\.0\.0\.0:(707[0-4])\b/g, (_, port: string) => `127.0.0.1:${portOf(machine, port)}`)
      .replace(new RegExp(`advertise: ${hostPattern.source}`), "advertise: 127.0.0.1")
      .replaceAll("/var/lib/headpond", join(directory, machine));
  const bin = join(directory, "bin");
  await mkdir(bin);
  await writeFile(join(bin, "headpond"), `#!/bin/sh\nexec "${process.execPath}" "${headpondBin}" "$@"\n`);
  await chmod(join(bin, "headpond"), 0o755);
  const machines = new Map(names.map((name) => [name, new Machine({ name, directory, place, path: bin })]));
  const at = (name: string): Machine => machines.get(name) as Machine;
  try {
    for (const step of steps) {
      if (step.kind === "command") await at(step.host).run(step.command);
      else for (const host of step.hosts) await at(host).configure(step.text);
    }
    const { members } = JSON.parse(await at("h1").run("headpond cluster members --json")) as {
      readonly members: readonly MasterStatus[];
    };
    assert.deepEqual(
      members.map(({ id, voter, reachable }) => ({ id, voter, reachable })),
      ["m1", "m2", "m4"].map((id) => ({ id, voter: true, reachable: true })),
    );
    assert.match(await at("h1").run("headpond fs ls /"), /models\//, "what the single master knew is there");
  } finally {
    await Promise.all([...machines.values()].map((machine) => machine.stop("SIGKILL")));
    await rm(directory, { recursive: true, force: true });
  }
});
