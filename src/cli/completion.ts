/** `completion bash|zsh|fish`: scripts made from the command tree itself, so they cannot fall behind. */

import type { Command } from "commander";
import { HeadpondError } from "../base/errors.ts";
import { action, type Commands, leaf } from "./command.ts";

export function addCompletion({ program, signal }: Commands): void {
  leaf(
    program,
    "completion <shell>",
    "completion script for bash, zsh or fish",
    "source <(headpond completion bash)",
  ).action(
    action(signal, async (context, _flags, shell: string) => {
      context.output.raw(completionScript(program, shell));
      return 0;
    }),
  );
}

type Node = { readonly words: string; readonly children: readonly string[]; readonly flags: readonly string[] };

export function completionScript(program: Command, shell: string): string {
  const nodes = collect(program, "");
  switch (shell) {
    case "bash":
      return bashScript(nodes);
    case "zsh":
      return `#compdef headpond\nautoload -U +X bashcompinit && bashcompinit\n${bashScript(nodes)}`;
    case "fish":
      return fishScript(nodes);
    default:
      throw new HeadpondError("invalid", `no completion for ${shell}: there are bash, zsh and fish`);
  }
}

function collect(command: Command, words: string): Node[] {
  const node = {
    words,
    children: command.commands.map((child) => child.name()),
    flags: command.options.map((option) => option.long ?? option.short ?? "").filter((flag) => flag !== ""),
  };
  return [node, ...command.commands.flatMap((child) => collect(child, `${words} ${child.name()}`.trim()))];
}

function bashScript(nodes: readonly Node[]): string {
  const cases = nodes.map(
    ({ words, children, flags }) => `    "${words}") words="${[...children, ...flags].join(" ")}" ;;`,
  );
  return `_headpond() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" word words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    [[ "$word" == -* || "$word" == /* ]] && continue
    path="\${path:+$path }$word"
  done
  case "$path" in
${cases.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _headpond headpond
`;
}

function fishScript(nodes: readonly Node[]): string {
  const lines = ["complete -c headpond -f"];
  for (const { words, children, flags } of nodes) {
    const seen = words.split(" ").filter((word) => word !== "");
    const condition =
      seen.length === 0
        ? "__fish_use_subcommand"
        : seen.map((word) => `__fish_seen_subcommand_from ${word}`).join("; and ");
    for (const child of children) lines.push(`complete -c headpond -n '${condition}' -a ${child}`);
    for (const flag of flags) lines.push(`complete -c headpond -n '${condition}' -l ${flag.replace(/^-+/, "")}`);
  }
  return `${lines.join("\n")}\n`;
}
