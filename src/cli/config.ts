/** `config show|check|docs`. */

import { configurationReference, environmentName, type SettingKey } from "../base/config.ts";
import { action, type Commands, leaf } from "./command.ts";

export function addConfig({ program, signal }: Commands): void {
  const config = program.command("config").description("settings and where they come from");
  leaf(config, "show", "each value and its source", "headpond config show --json").action(
    action(signal, async (context) => {
      const { raw, sources } = context.loadConfig();
      const rows = (Object.keys(sources) as SettingKey[]).map((key) => ({
        key,
        value: raw[key] ?? null,
        source: sources[key],
        environment: environmentName(key),
      }));
      context.output.result(rows, () =>
        context.output.table(rows, [
          { title: "KEY", value: (row) => row.key },
          {
            title: "VALUE",
            value: (row) =>
              row.value === null ? "-" : typeof row.value === "string" ? row.value : JSON.stringify(row.value),
          },
          { title: "FROM", value: (row) => row.source },
        ]),
      );
      return 0;
    }),
  );
  leaf(
    config,
    "check",
    "read the configuration and say what is wrong with it",
    "headpond config check --config headpond.yaml",
  ).action(
    action(signal, async (context) => {
      context.loadConfig();
      context.output.result({ ok: true }, () => context.output.line("the configuration is right"));
      return 0;
    }),
  );
  leaf(
    config,
    "docs",
    "the reference of all settings, in Markdown",
    "headpond config docs > docs/configuration.md",
  ).action(
    action(signal, async (context) => {
      const text = configurationReference();
      context.output.result({ markdown: text }, () => context.output.raw(text));
      return 0;
    }),
  );
}
