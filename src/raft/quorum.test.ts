import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { quorumValue, voteResult } from "./quorum.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
const ids = ["a", "b", "c", "d", "e", "f", "g"];

function randomVoters(random: Random, least: number): string[] {
  return random.shuffle([...ids]).slice(0, random.between(least, ids.length));
}

test(`a quorum value is the highest that more than half of each half has reached (seed ${seed})`, () => {
  const random = new Random(seed);
  for (let i = 0; i < 2000; i++) {
    const configuration = {
      voters: randomVoters(random, 1),
      outgoing: random.chance(0.5) ? [] : randomVoters(random, 1),
    };
    const values = new Map(ids.map((id) => [id, random.between(0, 9)]));
    const isReached = (value: number): boolean =>
      [configuration.voters, configuration.outgoing].every((voters) => {
        const count = voters.filter((id) => (values.get(id) ?? 0) >= value).length;
        return voters.length === 0 || count * 2 > voters.length;
      });
    const expected = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0].find(isReached);
    assert.equal(
      quorumValue(configuration, (id) => values.get(id) ?? 0),
      expected,
      JSON.stringify(configuration),
    );
  }
});

test(`an election is won, lost or open as its possible ends are (seed ${seed})`, () => {
  const random = new Random(seed);
  for (let i = 0; i < 2000; i++) {
    const configuration = {
      voters: randomVoters(random, 1),
      outgoing: random.chance(0.5) ? [] : randomVoters(random, 1),
    };
    const votes = new Map<string, boolean>();
    for (const id of ids) if (random.chance(0.6)) votes.set(id, random.chance(0.5));
    const wins = (missing: boolean): boolean =>
      [configuration.voters, configuration.outgoing].every((voters) => {
        const granted = voters.filter((id) => votes.get(id) ?? missing).length;
        return voters.length === 0 || granted * 2 > voters.length;
      });
    const expected = wins(false) ? "won" : wins(true) ? "pending" : "lost";
    assert.equal(voteResult(configuration, votes), expected, JSON.stringify([configuration, [...votes]]));
  }
});

test("a quorum of nobody has reached everything and wins every vote", () => {
  const nobody = { voters: [], outgoing: [] };
  assert.equal(
    quorumValue(nobody, () => 0),
    Number.POSITIVE_INFINITY,
  );
  assert.equal(voteResult(nobody, new Map()), "won");
});
