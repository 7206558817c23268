/** `mount`, `unmount`, `mounts`. */

import { parsePath } from "../base/path.ts";
import { action, type Commands, leaf } from "./command.ts";
import { parsePairs } from "./fs-change.ts";

export function addMount({ program, signal }: Commands): void {
  leaf(
    program,
    "mount <path> <uri>",
    "show an under store at a path",
    "headpond mount /models s3://bucket/models --option region=eu-west-1",
  )
    .option("--option <key=value...>", "option of the under store")
    .option("--read-only", "refuse every change below the path")
    .action(
      action(signal, async (context, flags, path: string, uri: string) => {
        const mount = await context.client().mount(parsePath(path), uri, {
          readOnly: flags["readOnly"] === true,
          options: parsePairs((flags["option"] as readonly string[] | undefined) ?? []),
          signal,
        });
        context.output.result(mount, () => context.output.line(`${mount.path} shows ${mount.uri}`));
        return 0;
      }),
    );
  leaf(
    program,
    "unmount <path>",
    "take a mount away; its under store keeps everything",
    "headpond unmount /models",
  ).action(
    action(signal, async (context, _flags, path: string) => {
      await context.client().unmount(parsePath(path), { signal });
      context.output.result({ unmounted: path }, () => context.output.line(`${path} is no mount any more`));
      return 0;
    }),
  );
  leaf(program, "mounts", "the mount table", "headpond mounts --json").action(
    action(signal, async (context) => {
      const mounts = await context.client().mounts({ signal });
      context.output.result(mounts, () =>
        context.output.table(mounts, [
          { title: "PATH", value: (row) => row.path },
          { title: "UNDER STORE", value: (row) => row.uri },
          { title: "MODE", value: (row) => (row.readOnly ? "read-only" : "read-write") },
          {
            title: "OPTIONS",
            value: (row) =>
              Object.entries(row.options)
                .map((pair) => pair.join("="))
                .join(" "),
          },
        ]),
      );
      return 0;
    }),
  );
}
