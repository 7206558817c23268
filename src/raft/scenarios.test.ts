import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { playScenario } from "../testing/raft-scenario.ts";

const directory = new URL("testdata/", import.meta.url);

/** The first comment of a scenario is its claim. `UPDATE=1` writes down what happens instead of comparing. */
for (const name of readdirSync(directory).sort()) {
  const text = readFileSync(new URL(name, directory), "utf8");
  const claim = text.split("\n")[0]?.replace(/^# /, "") ?? name;
  test(`${name}: ${claim}`, () => {
    const played = playScenario(text);
    if (process.env["UPDATE"] === "1") writeFileSync(new URL(name, directory), played);
    else assert.equal(played, text);
  });
}
