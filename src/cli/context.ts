/** What every command gets: the common flags, the output, the configuration, and a client when it asks for one. */

import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { parse as parseYaml } from "yaml";
import { type ConfigInput, type LoadedConfig, loadConfig, type SettingKey, settings } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { parseDurationMs } from "../base/units.ts";
import { connect, type HeadpondClient } from "../client/client.ts";
import { NodeClock } from "../io/node-clock.ts";
import { Output } from "./output.ts";

export type CommonFlags = {
  readonly json?: boolean;
  readonly masters?: string;
  readonly config?: string;
  readonly timeout?: string;
  readonly verbose?: boolean;
  readonly set?: readonly string[];
};

const timeoutMsDefault = 60_000;
/** Of work that takes as long as there is data: checkpoints, verification, a master that catches up. */
const longTimeoutMsDefault = 30 * 60_000;
const configPaths = ["headpond.yaml", "/etc/headpond/headpond.yaml"];

export class Context {
  readonly flags: CommonFlags;
  readonly output: Output;
  readonly clock = new NodeClock();
  /** Fires on Ctrl-C: long commands stop cleanly. */
  readonly signal: AbortSignal;
  #client: HeadpondClient | undefined;
  #loaded: LoadedConfig | undefined;

  constructor(flags: CommonFlags, signal: AbortSignal) {
    this.flags = flags;
    this.signal = signal;
    this.output = new Output({
      json: flags.json === true,
      streams: { out: process.stdout, err: process.stderr },
      noColour: process.env["NO_COLOR"] !== undefined,
    });
  }

  get timeoutMs(): number {
    return this.flags.timeout === undefined ? timeoutMsDefault : parseDurationMs(this.flags.timeout);
  }

  get longTimeoutMs(): number {
    return this.flags.timeout === undefined ? longTimeoutMsDefault : this.timeoutMs;
  }

  /** The configuration of this process, with where each value came from. */
  loadConfig(overrides: Partial<Record<SettingKey, unknown>> = {}): LoadedConfig {
    this.#loaded ??= loadConfig({
      ...readConfigFile(this.flags.config),
      environment: process.env,
      flags: { ...parseSetFlags(this.flags.set ?? []), ...overrides },
    });
    return this.#loaded;
  }

  /** Masters by flag, environment, configuration file, default. */
  masters(): readonly string[] {
    const text = this.flags.masters ?? process.env["HEADPOND_MASTERS"];
    if (text !== undefined) return text.split(",").map((address) => address.trim());
    return this.loadConfig().config["worker.masters"];
  }

  client(): HeadpondClient {
    this.#client ??= connect({ masters: this.masters(), timeoutMs: this.timeoutMs });
    return this.#client;
  }

  async close(): Promise<void> {
    await this.#client?.close();
  }
}

/** Adds the flags that every command has. */
export function withCommonFlags(command: Command, options: { readonly asksMasters: boolean }): Command {
  command.option("--json", "print JSON and nothing else on stdout");
  if (options.asksMasters) {
    command.option("--masters <addresses>", "host:port of the masters, comma separated (HEADPOND_MASTERS)");
  }
  return command
    .option("--config <file>", "configuration file (default: headpond.yaml, /etc/headpond/headpond.yaml)")
    .option("--timeout <duration>", "give up after, e.g. 30s")
    .option("--set <key=value...>", "override one setting of the configuration")
    .option("-v, --verbose", "say more on stderr");
}

function readConfigFile(path: string | undefined): ConfigInput {
  for (const candidate of path === undefined ? configPaths : [path]) {
    let content: string;
    try {
      content = readFileSync(candidate, "utf8");
    } catch (error) {
      if (path === undefined && (error as NodeJS.ErrnoException).code === "ENOENT") continue;
      throw new HeadpondError("invalid", `configuration file ${candidate}: ${(error as Error).message}`, {
        cause: error,
      });
    }
    try {
      return { file: parseYaml(content) as unknown };
    } catch (error) {
      throw new HeadpondError("invalid", `configuration file ${candidate}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
  return {};
}

function parseSetFlags(pairs: readonly string[]): Partial<Record<SettingKey, unknown>> {
  const flags: Partial<Record<SettingKey, unknown>> = {};
  for (const pair of pairs) {
    const equals = pair.indexOf("=");
    const key = pair.slice(0, equals);
    if (equals < 1 || !Object.hasOwn(settings, key)) {
      throw new HeadpondError("invalid", `--set ${pair}: write key=value with a key of \`headpond config docs\``);
    }
    flags[key as SettingKey] = pair.slice(equals + 1);
  }
  return flags;
}
