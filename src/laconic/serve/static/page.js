// The page: what is asked for, and a card for each method that answers.

import { recalled, remember, useKey } from "./api.js";
import { Card, count } from "./card.js";
import { CHAT, TEXT } from "./examples.js";
import { poll, watch } from "./ledger.js";

const LARGEST = 2 << 20; // bytes; the server takes no more
const PAUSE = 250; // milliseconds without a key stroke
const PRICE = "laconic-price";
const MOST_CARDS = 4;
const OTHERS = ["bm25", "tfidf", "llmlingua2 laconic-nano", "stopwords"]; // to compare with
const $ = (id) => document.getElementById(id);

const cards = [];
let timer = 0;

// What the fields say, as `/v1/compress` takes it; nothing if there is no text.
function asked() {
  const text = $("text").value;
  if (!text.trim()) return null;
  const chat = chatOf(text);
  const fields = chat ? { messages: chat.messages } : { text };
  if (chat && $("newest").checked) fields.newest = true;
  const budget = $("by-rate").checked ? ["rate", Number($("rate-number").value) / 100] : ["tokens", Number($("tokens-number").value)];
  fields[budget[0]] = budget[1];
  if ($("question").value.trim()) fields.question = $("question").value;
  const protect = $("protect").value.split("\n").filter((line) => line.trim());
  if (protect.length) fields.protect = protect;
  if ($("counter").value) fields.counter = $("counter").value;
  return { fields, whole: (messages) => (chat.request ? { ...chat.request, messages } : messages) };
}

// The messages of a pasted request, or of a list of messages.
function chatOf(text) {
  if (!/^\s*[[{]/.test(text)) return null;
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  const messages = Array.isArray(value) ? value : value.messages;
  const fine = Array.isArray(messages) && messages.length && messages.every((m) => m && typeof m.role === "string");
  return fine ? { messages, request: Array.isArray(value) ? null : value } : null;
}

function run() {
  clearTimeout(timer);
  const all = asked();
  trouble(all && new Blob([JSON.stringify(all.fields)]).size > LARGEST ? `That is more than ${count.format(LARGEST)} bytes. Send less at a time.` : "");
  const sent = $("trouble").hidden ? all : null;
  describe(all);
  return Promise.all(cards.map((card) => card.run(sent))).then(() => {
    $("tokens").max = cards[0].answer?.tokens_before || $("tokens").max;
  });
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(run, PAUSE);
}

function describe(all) {
  const length = $("text").value.length;
  $("clear").hidden = !length;
  $("size").textContent = length ? `${count.format(length)} characters` : "";
  $("chat").hidden = !all?.fields.messages;
  if (all?.fields.messages) {
    const n = all.fields.messages.length;
    $("chat-note").textContent =
      `A chat request of ${n} message${n === 1 ? "" : "s"}. System prompts, calls of tools and the newest user message stay as they are.`;
  }
}

function trouble(words) {
  $("trouble").textContent = words;
  $("trouble").hidden = !words;
}

function fill({ text, question, rate }) {
  $("text").value = text;
  $("question").value = question;
  if (rate) {
    $("by-rate").checked = true;
    $("rate").value = $("rate-number").value = rate;
    showBudget();
  }
  return run();
}

async function open(file) {
  if (!file) return;
  if (file.size > LARGEST) return trouble(`${file.name} is larger than ${count.format(LARGEST)} bytes.`);
  const text = await file.text();
  if (text.includes("\0")) return trouble(`${file.name} is not a text file.`);
  $("text").value = text;
  await run();
}

// Cards

const hooks = {
  changed: (card) => card.run(asked()),
  removed: remove,
  start: () => fill(TEXT),
  told: (words) => ($("status").textContent = words),
  price: () => Math.max(0, Number($("price").value) || 0),
  plain: () => $("plain").checked,
};

function add(method) {
  const card = new Card(method, hooks);
  cards.push(card);
  $("cards").append(card.node);
  arrange();
  return card;
}

function remove(card) {
  card.stop();
  card.node.remove();
  cards.splice(cards.indexOf(card), 1);
  arrange();
  $("compare").focus();
}

function arrange() {
  $("cards").classList.toggle("several", cards.length > 1);
  for (const card of cards) card.find(".remove").hidden = cards.length === 1;
  $("compare").disabled = cards.length === MOST_CARDS;
}

function compare() {
  const used = cards.map((card) => card.method.value);
  if (!$("question").value.trim()) used.push("bm25"); // it has nothing to go by
  const card = add(OTHERS.find((method) => !used.includes(method)));
  card.method.focus();
  return card.run(asked());
}

// Controls

function pair(range, number) {
  range.addEventListener("input", () => {
    number.value = range.value;
    soon();
  });
  number.addEventListener("input", () => {
    range.value = number.value;
    soon();
  });
}

function showBudget() {
  $("rate-row").hidden = !$("by-rate").checked;
  $("tokens-row").hidden = $("by-rate").checked;
}

// A number of tokens begins as what a share came to.
function switchBudget() {
  const answer = cards[0].answer;
  if ($("by-tokens").checked && answer) {
    $("tokens").value = $("tokens-number").value = Math.max(1, answer.tokens_after);
  }
  showBudget();
  return run();
}

function drop(event) {
  event.preventDefault();
  $("drop").classList.remove("over");
  const { files } = event.dataTransfer;
  if (files.length) return open(files[0]);
  $("text").value = event.dataTransfer.getData("text/plain") || $("text").value;
  return run();
}

function onDrop() {
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
  document.addEventListener("drop", drop);
}

function onKey() {
  document.addEventListener("key-wanted", () => ($("key-form").hidden = false));
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey($("key").value);
    $("key").value = "";
    $("key-form").hidden = true;
    $("text").focus();
    run();
    poll();
  });
}

function start() {
  for (const id of ["text", "question", "protect"]) $(id).addEventListener("input", soon);
  for (const id of ["newest", "counter"]) $(id).addEventListener("change", run);
  for (const id of ["by-rate", "by-tokens"]) $(id).addEventListener("change", switchBudget);
  for (const id of ["marked", "plain"]) {
    $(id).addEventListener("change", () => {
      $("legend").classList.toggle("off", $("plain").checked);
      cards.forEach((card) => card.showMap());
    });
  }
  pair($("rate"), $("rate-number"));
  pair($("tokens"), $("tokens-number"));
  $("price").value = recalled("localStorage", PRICE) ?? $("price").value;
  $("price").addEventListener("input", () => {
    remember("localStorage", PRICE, $("price").value);
    cards.forEach((card) => card.showFigures());
  });
  $("example").addEventListener("click", () => fill(TEXT));
  $("chat-example").addEventListener("click", () => fill(CHAT));
  $("clear").addEventListener("click", () => {
    fill({ text: "", question: "" });
    $("text").focus();
  });
  $("file").addEventListener("change", () => {
    open($("file").files[0]);
    $("file").value = "";
  });
  $("compare").addEventListener("click", compare);
  window.addEventListener("online", () => run());
  window.addEventListener("offline", () => trouble("This browser is offline."));
  onDrop();
  onKey();
  add("");
  showBudget();
  run(); // a browser may have kept the fields
  watch();
}

start();
