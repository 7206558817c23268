/** `headpond version`: of this program, and of the master if one answers. */

import { readFileSync } from "node:fs";
import { action, type Commands, leaf } from "./command.ts";

/** From package.json, which lies two folders up from both src/cli and dist/cli. */
export const version: string = (
  JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }
).version;

export function addVersion({ program, signal }: Commands): void {
  leaf(program, "version", "version of this program and of its Node", "headpond version --json").action(
    action(signal, async (context) => {
      const document = { version, node: process.version, platform: `${process.platform}-${process.arch}` };
      context.output.result(document, () =>
        context.output.line(`headpond ${version} (node ${process.version}, ${document.platform})`),
      );
      return 0;
    }),
  );
}
