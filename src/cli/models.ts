/** `models [ls|show]`: which model version is READY, FILLING or absent, and where. */

import type { ModelStatus } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import { parsePath } from "../base/path.ts";
import { formatBytes } from "../base/units.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";

export function addModels({ program, signal }: Commands): void {
  const models = program.command("models").description("models and where they are ready");
  leaf(models, "ls [path]", "models below a path, one row a worker", "headpond models ls /models", {
    isDefault: true,
  }).action(
    action(signal, async (context, _flags, word: string | undefined) => {
      const list = await context.client().models({ ...(word === undefined ? {} : { path: parsePath(word) }), signal });
      context.output.result(list, () => showModels(context, list));
      return 0;
    }),
  );
  leaf(models, "show <path>", "one model", "headpond models show /models/org/name").action(
    action(signal, async (context, _flags, word: string) => {
      const path = parsePath(word);
      const model = (await context.client().models({ path, signal })).find((candidate) => candidate.path === path);
      if (model === undefined) throw new HeadpondError("not-found", `${path} holds no model: see headpond models ls`);
      context.output.result(model, () => showModels(context, [model]));
      return 0;
    }),
  );
}

function showModels(context: Context, models: readonly ModelStatus[]): void {
  type Row = { readonly model: ModelStatus; readonly place: ModelStatus["places"][number] | undefined };
  const rows = models.flatMap((model): readonly Row[] =>
    model.places.length === 0 ? [{ model, place: undefined }] : model.places.map((place) => ({ model, place })),
  );
  context.output.table(rows, [
    { title: "MODEL", value: ({ model }) => model.path },
    { title: "VERSION", value: ({ model }) => model.version.slice(0, 12) },
    { title: "SIZE", value: ({ model }) => formatBytes(model.bytes), align: "right" },
    { title: "WORKER", value: ({ place }) => place?.worker ?? "-" },
    { title: "STATE", value: ({ place }) => context.output.state(place?.state ?? "ABSENT") },
    { title: "HELD", value: ({ place }) => formatBytes(place?.bytes ?? 0), align: "right" },
  ]);
}
