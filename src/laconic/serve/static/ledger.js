// Recent requests of the proxy, asked for every few seconds while someone looks.

import { ask } from "./api.js";
import { count, figure } from "./card.js";

const PAUSE = 3000; // milliseconds
const LONGER = 15_000; // after an error
const $ = (id) => document.getElementById(id);

let timer = 0;

export function watch() {
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
  poll();
}

export async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  let pause = PAUSE;
  try {
    show(await ask("v1/ledger"));
  } catch (error) {
    pause = { 404: 0, 401: 0 }[error.status] ?? LONGER;
    fail(error);
  }
  clearTimeout(timer); // of another call, meanwhile
  if (pause) timer = setTimeout(poll, pause);
}

function fail(error) {
  $("totals").hidden = $("ledger").hidden = true;
  $("ledger-note").textContent =
    { 404: "This server keeps no ledger.", 401: "The server asks for a key first." }[error.status] ?? error.message;
}

function show({ requests, totals }) {
  const empty = !requests.length;
  $("totals").hidden = $("ledger").hidden = empty;
  $("ledger-note").textContent = empty
    ? "None yet. Point a client at this server, and its requests appear here."
    : "Live. Counts only, never contents.";
  if (empty) return;
  const sum = (name) => totals[name] ?? requests.reduce((all, request) => all + (request[name] ?? 0), 0);
  const [before, after] = [sum("tokens_before"), sum("tokens_after")];
  $("totals").replaceChildren(
    figure("Requests", "", count.format(totals.requests ?? requests.length)),
    figure("Tokens", `${count.format(before)} → `, count.format(after)),
    figure("Saved", "", `${share(before, after)} %`),
  );
  const rows = [...requests].sort((a, b) => when(b.time) - when(a.time)).map(row);
  $("ledger").querySelector("tbody").replaceChildren(...rows);
}

const share = (before, after) => (before ? Math.round((100 * (before - after)) / before) : 0);
const when = (time) => new Date(typeof time === "number" ? 1000 * time : time);

function row(request) {
  const { time, protocol, upstream, status, tokens_before: before, tokens_after: after, reasons, ms, stream } = request;
  const cells = [
    ["Time", when(time).toLocaleTimeString()],
    ["Protocol", protocol],
    ["Upstream", upstream],
    ["Tokens", `${count.format(before)} → ${count.format(after)}`, "number"],
    ["Saved", `${share(before, after)} %`, "number"],
    ["Parts", Object.entries(reasons ?? {}).map(([reason, times]) => `${times} ${reason}`).join(", ")],
    ["Time taken", `${count.format(Math.round(ms))} ms${stream ? ", stream" : ""}`, "number"],
    ["Status", status, status >= 400 ? "bad" : ""],
  ];
  const node = document.createElement("tr");
  node.setAttribute("role", "row");
  node.append(...cells.map(cell));
  return node;
}

function cell([name, value, kind = ""]) {
  const node = document.createElement("td");
  node.setAttribute("role", "cell");
  node.dataset.name = name;
  node.className = kind;
  node.textContent = value ?? "";
  return node;
}
