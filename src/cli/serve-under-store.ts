/** How masters and workers open an under store in the real world: with the doors of the process and the environment's credentials. */

import type { Metrics } from "../io/metrics.ts";
import { openUnderStore } from "../under-store/open.ts";
import type { UnderStore } from "../under-store/under-store.ts";
import type { Doors } from "./serve.ts";

export type OpenUnderStore = (uri: string, options: Readonly<Record<string, string>>) => Promise<UnderStore>;

export function openUnderStoreWith({ clock, disk, logger }: Doors, metrics: Metrics): OpenUnderStore {
  return async (uri, options) =>
    openUnderStore(uri, options, { clock, disk, logger, metrics, environment: process.env });
}
